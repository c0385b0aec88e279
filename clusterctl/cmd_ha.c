/* ha set, arm, disarm: what the cluster does by itself. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ha_policy.h"
#include "clusterctl/job_wait.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/ha_defaults.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

/* ---- set */

static int show_policy(struct invocation *inv, const Gantry__Domain *d, const Gantry__HaPolicy *p)
{
	_cleanup_free_ char *text = ha_policy_text(p);

	if (inv->format != OUTPUT_TABLE)
		return output_object(inv->format, json_pack("{s:s, s:b, s:o}", "name", d->spec->name, "ha", d->ha, "policy",
							    pbjson_from_message(&p->base, true)), &inv->err);
	printf("%s: %s\n", d->spec->name, d->ha ? text : "not HA: it stays down when its host dies");
	return 0;
}

static int write_policy(struct invocation *inv, const Gantry__Domain *d, Gantry__HaPolicy *p)
{
	_cleanup_free_ char *text = ha_policy_text(p), *done = str_printf("%s: %s", d->spec->name, text);
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHaSet body = GANTRY__CMD_HA_SET__INIT;

	if (!d->ha)
		fprintf(stderr, "clusterctl: warning: %s is not HA (it was made with --no-ha): nothing of this counts\n", d->spec->name);
	body.domain = d->spec->uuid;
	body.policy = p;
	command.body_case = GANTRY__COMMAND__BODY_HA_SET;
	command.ha_set = &body;
	return job_run(inv, &command, done);
}

int cmd_ha_set(struct invocation *inv)
{
	Gantry__HaPolicy *p = NULL;
	Gantry__CtlModel *m = NULL;
	bool changed = false;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	const Gantry__Domain *d = cmd_domain(m, inv->args[0]);
	if (d == NULL) {
		rc = err_set_status(&inv->err, ENOENT, STATUS(NO_SUCH), "no domain '%.60s'; see 'clusterctl list'", inv->args[0]);
	} else {
		p = ha_policy_of(d);
		rc = ha_policy_change(inv, p, &changed, &inv->err);
	}
	if (rc == 0)
		rc = changed ? write_policy(inv, d, p) : show_policy(inv, d, p);
	if (p != NULL)
		gantry__ha_policy__free_unpacked(p, NULL);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

/* ---- arm, disarm */

char *cmd_ha_disarmed(const Gantry__ClusterModel *m)
{
	uint64_t now_ms = (uint64_t)time(NULL) * 1000;

	if (m->ha == NULL || !m->ha->disarmed)
		return NULL;
	_cleanup_free_ char *until = cmd_time(m->ha->until_ms);
	_cleanup_free_ char *left = units_format_ms(m->ha->until_ms > now_ms ? m->ha->until_ms - now_ms : 0);
	return str_printf("HA is DISARMED until %s (%s left)%s%s: nothing is fenced, restarted or moved by itself", until, left,
			  m->ha->reason[0] ? ": " : "", m->ha->reason);
}

/* Whoever finds the cluster disarmed wants to know whom to ask. */
static char *reason_text(const char *reason)
{
	const char *user = getenv("SUDO_USER");
	char host[65] = "";

	user = user && user[0] ? user : getenv("USER");
	gethostname(host, sizeof(host) - 1);
	return str_printf("%s%sby %s on %s", reason ? reason : "", reason ? ", " : "", user && user[0] ? user : "root", host);
}

static int propose_arm(struct invocation *inv, Gantry__CmdHaArm *body, const char *done)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;

	command.body_case = GANTRY__COMMAND__BODY_HA_ARM;
	command.ha_arm = body;
	return job_run(inv, &command, done);
}

int cmd_ha_disarm(struct invocation *inv)
{
	const char *text = invocation_option(inv, "for");
	_cleanup_free_ char *reason = reason_text(invocation_option(inv, "reason"));
	Gantry__CmdHaArm body = GANTRY__CMD_HA_ARM__INIT;
	uint64_t seconds = HA_DISARM_MS_DEFAULT / 1000;
	int rc = text ? units_parse_seconds("--for", text, 1, HA_DISARM_MS_MAX / 1000, &seconds, &inv->err) : 0;

	if (rc < 0)
		return rc;
	body.for_ms = seconds * 1000;
	body.reason = reason;
	_cleanup_free_ char *until = cmd_time((uint64_t)time(NULL) * 1000 + body.for_ms), *span = units_format_ms(seconds * 1000);
	_cleanup_free_ char *done = str_printf(
		"HA is disarmed until %s (for %s).\n"
		"Until then the cluster does nothing by itself: no host is fenced, no domain is restarted, started elsewhere or stopped to make room,\n"
		"and a host without quorum leaves its domains running. What you command is done. 'clusterctl ha arm' ends it before.", until, span);
	return propose_arm(inv, &body, done);
}

int cmd_ha_arm(struct invocation *inv)
{
	Gantry__CmdHaArm body = GANTRY__CMD_HA_ARM__INIT;

	body.armed = true;
	return propose_arm(inv, &body, "HA is armed: hosts that are lost are fenced, and their domains start elsewhere");
}

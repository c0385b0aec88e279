/* How a host is proven dead. */
#include <errno.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "clusterctl/job_wait.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x
#define LEVEL_MAX 16
#define WATCHDOG "watchdog"   /* FENCE_WATCHDOG of fencing/fence_agent.h */

static char *params_text(const Gantry__Host *h, const Gantry__FenceDevice *d)
{
	struct buf text = {0};

	if (strcmp(d->agent, WATCHDOG) == 0)
		return h->watchdog[0] ? str_dup(h->watchdog) : str_dup("its agent reports none: it proves nothing");
	for (size_t i = 0; i < d->n_params; i++)
		buf_printf(&text, "%s%s=%s", i ? " " : "", d->params[i]->key, d->params[i]->secret ? "***" : d->params[i]->value);
	char *result = str_dup(buf_str(&text));
	buf_free(&text);
	return result;
}

int cmd_fence_list(struct invocation *inv)
{
	static const struct output_column columns[] = {{"Host", false}, {"Level", true}, {"Agent", false}, {"Parameters", false}};
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	struct output_table *t = output_table_new(inv->format, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < m->model->n_hosts; i++) {
		const Gantry__Host *h = m->model->hosts[i];
		for (size_t j = 0; j < h->n_fence; j++) {
			const Gantry__FenceDevice *d = h->fence[j];
			json_t *item = pbjson_from_message(&d->base, true);
			char *const cells[] = {str_dup(h->name), str_printf("%u", d->level), str_dup(d->agent), params_text(h, d)};
			json_object_set_new(item, "host", json_string(h->name));
			output_table_row(t, cells, item);
		}
		if (h->n_fence == 0) {
			char *const cells[] = {str_dup(h->name), str_dup("-"), str_dup("none"),
					       str_dup("cannot be proven dead; see 'clusterctl help fence set'")};
			output_table_row(t, cells, json_pack("{s:s, s:n}", "host", h->name, "agent"));
		}
	}
	rc = output_table_finish(t, &inv->err);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

/* Nobody wants a password in a list, an event or a log. */
static bool is_secret(const char *key)
{
	static const char *const marks[] = {"pass", "secret", "token", "community", "private", "priv_"};

	for (size_t i = 0; i < ARRAY_SIZE(marks); i++)
		if (strcasestr(key, marks[i]) != NULL && strstr(key, "script") == NULL)
			return true;
	return false;
}

static int add_param(struct invocation *inv, Gantry__FenceDevice *d, const char *text)
{
	_cleanup_free_ char *key = NULL, *value = NULL;
	int rc = cmd_split_pair(inv, text, &key, &value);

	if (rc < 0)
		return rc;
	Gantry__FenceParam *param = PB_NEW(Gantry__FenceParam, gantry__fence_param__init);
	pb_set_string(&param->key, key);
	pb_set_string(&param->value, value);
	param->secret = is_secret(key);
	PB_APPEND(d, params, param);
	return 0;
}

/* AGENT k=v... [+ AGENT k=v...]...: one device a level, the first at `level`. */
static int read_devices(struct invocation *inv, uint32_t level, Gantry__CmdFenceSet *body)
{
	bool begin = true;
	int rc = 0;

	for (size_t i = 1; rc == 0 && i < inv->n_args; i++) {
		if (strcmp(inv->args[i], "+") == 0 && !begin) {
			begin = true;
		} else if (begin) {
			if (strchr(inv->args[i], '=') != NULL ||
			    (strncmp(inv->args[i], "fence_", 6) != 0 && strcmp(inv->args[i], WATCHDOG) != 0))
				return err_set_status(&inv->err, EINVAL, STATUS(USAGE),
						      "'%.60s' has to be the name of a fence agent, such as fence_ipmilan, or 'watchdog'", inv->args[i]);
			Gantry__FenceDevice *d = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);
			pb_set_string(&d->agent, inv->args[i]);
			d->level = level + (uint32_t)body->n_devices;
			PB_APPEND(body, devices, d);
			begin = false;
		} else {
			Gantry__FenceDevice *d = body->devices[body->n_devices - 1];
			if (strcmp(d->agent, WATCHDOG) == 0)
				return err_set_status(&inv->err, EINVAL, STATUS(USAGE),
						      "'%.60s': a watchdog takes no parameters; which one it is stands in the host's own host.yaml", inv->args[i]);
			rc = add_param(inv, d, inv->args[i]);
		}
	}
	if (rc == 0 && begin)
		return err_set_status(&inv->err, EINVAL, STATUS(USAGE), "a fence agent is missing behind the last '+'");
	return rc;
}

/* Adds the devices of the other levels, as the host has them. Secrets cannot be read back: with one of those the whole
 * has to be given anew. */
static int keep_other_levels(struct invocation *inv, const Gantry__Host *h, uint32_t level, Gantry__CmdFenceSet *body)
{
	for (size_t i = 0; i < h->n_fence; i++) {
		const Gantry__FenceDevice *d = h->fence[i];
		if (d->level == level)
			continue;
		for (size_t j = 0; j < d->n_params; j++)
			if (d->params[j]->secret)
				return err_set_status(&inv->err, EINVAL, STATUS(CONSTRAINT),
						      "host '%s': %s of level %u has the secret %s, which cannot be read back; give all "
						      "levels in one command: fence set %s AGENT k=v... + AGENT k=v...",
						      h->name, d->agent, d->level, d->params[j]->key, h->name);
		PB_APPEND(body, devices, (Gantry__FenceDevice *)pb_clone(d));
	}
	return 0;
}

static int merge_level(struct invocation *inv, uint32_t level, Gantry__CmdFenceSet *body)
{
	Gantry__CtlModel *m = NULL;
	int rc;

	if (body->n_devices != 1)
		return err_set_status(&inv->err, EINVAL, STATUS(USAGE), "--level is for one device; with '+' the levels are 1, 2, ...");
	rc = cmd_model(inv, false, &m);
	if (rc < 0)
		return rc;
	const Gantry__Host *h;
	rc = cmd_host_named(inv, m, &h);
	if (rc == 0)
		rc = keep_other_levels(inv, h, level, body);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

static int propose_set(struct invocation *inv, Gantry__CmdFenceSet *body)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	_cleanup_free_ char *done = str_printf("host %s has %zu fence device%s", inv->args[0], body->n_devices,
					       body->n_devices == 1 ? "" : "s");

	pb_set_string(&body->host, inv->args[0]);
	command.body_case = GANTRY__COMMAND__BODY_FENCE_SET;
	command.fence_set = body;
	return job_run(inv, &command, done);
}

int cmd_fence_set(struct invocation *inv)
{
	const char *level_text = invocation_option(inv, "level");
	Gantry__CmdFenceSet *body = PB_NEW(Gantry__CmdFenceSet, gantry__cmd_fence_set__init);
	uint64_t level = 1;
	int rc = level_text ? units_parse_number("--level", level_text, 1, LEVEL_MAX, &level, &inv->err) : 0;

	if (rc == 0)
		rc = read_devices(inv, (uint32_t)level, body);
	if (rc == 0 && level_text != NULL)
		rc = merge_level(inv, (uint32_t)level, body);
	if (rc == 0)
		rc = propose_set(inv, body);
	gantry__cmd_fence_set__free_unpacked(body, NULL);
	return rc;
}

int cmd_fence_remove(struct invocation *inv)
{
	Gantry__CmdFenceSet *body = PB_NEW(Gantry__CmdFenceSet, gantry__cmd_fence_set__init);
	int rc = propose_set(inv, body);

	gantry__cmd_fence_set__free_unpacked(body, NULL);
	return rc;
}

int cmd_fence_confirm(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdFenceConfirm body = GANTRY__CMD_FENCE_CONFIRM__INIT;
	_cleanup_free_ char *done = str_printf("host %s counts as dead; its domains are started elsewhere", inv->args[0]);

	if (invocation_option(inv, "yes") == NULL)
		return err_set_status(&inv->err, EPERM, STATUS(NEEDS_FORCE),
				      "if host '%s' is not really off, two hosts will write to the same disks: switch it off, see that it is "
				      "off, then say --yes",
				      inv->args[0]);
	body.host = (char *)inv->args[0];
	command.body_case = GANTRY__COMMAND__BODY_FENCE_CONFIRM;
	command.fence_confirm = &body;
	return job_run(inv, &command, done);
}

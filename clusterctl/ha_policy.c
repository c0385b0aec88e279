#include "clusterctl/ha_policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/ha_defaults.h"
#include "proto/pb.h"

#define USAGE GANTRY__STATUS__STATUS_USAGE
#define READY(x) GANTRY__READY_BY__READY_BY_##x
#define LEAVE GANTRY__ISOLATION__ISOLATION_LEAVE
#define STOP GANTRY__ISOLATION__ISOLATION_STOP

Gantry__HaPolicy *ha_policy_of(const Gantry__Domain *d)
{
	Gantry__HaPolicy *p;

	if (d->policy != NULL)
		return pb_clone(d->policy);
	p = PB_NEW(Gantry__HaPolicy, gantry__ha_policy__init);
	p->priority = HA_PRIORITY_DEFAULT;
	p->ready_s = HA_READY_S_DEFAULT;
	p->restarts = HA_RESTARTS_DEFAULT;
	return p;
}

/* ---- from the options */

typedef int (*parse_fn)(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err);

static int set_figure(const struct invocation *inv, const char *option, parse_fn parse, uint64_t max, uint32_t *field, bool *changed, struct err *err)
{
	const char *text = invocation_option(inv, option);
	_cleanup_free_ char *what = str_printf("--%s", option);
	uint64_t figure;
	int rc = text ? parse(what, text, 0, max, &figure, err) : 0;

	if (text == NULL || rc < 0)
		return rc;
	*field = (uint32_t)figure;
	*changed = true;
	return 0;
}

/* One of two words. */
static int set_word(const struct invocation *inv, const char *option, const char *no, const char *yes, bool *field, bool *changed,
		    struct err *err)
{
	const char *text = invocation_option(inv, option);

	if (text == NULL)
		return 0;
	if (strcmp(text, no) != 0 && strcmp(text, yes) != 0)
		return err_set_status(err, EINVAL, USAGE, "--%s '%.40s' has to be '%s' or '%s'", option, text, no, yes);
	*field = strcmp(text, yes) == 0;
	*changed = true;
	return 0;
}

/* ADDRESS:PORT; an IPv6 address stands in brackets. The agent connects to it as it stands: a name would need a resolver on every host. */
static int set_port(const char *text, Gantry__HaPolicy *p, struct err *err)
{
	const char *colon = strrchr(text, ':');
	struct in6_addr ignored;
	uint64_t port = 0;

	if (colon == NULL)
		return err_set_status(err, EINVAL, USAGE, "--ready 'port:%.60s' has to be port:ADDRESS:PORT, such as port:10.0.0.5:80", text);
	bool bracketed = text[0] == '[' && colon > text + 1 && colon[-1] == ']';
	_cleanup_free_ char *address = bracketed ? str_printf("%.*s", (int)(colon - text - 2), text + 1) : str_printf("%.*s", (int)(colon - text), text);
	if (inet_pton(bracketed ? AF_INET6 : AF_INET, address, &ignored) != 1)
		return err_set_status(err, EINVAL, USAGE, "--ready 'port:%.60s': '%.40s' is not the guest's IP address (IPv6 in brackets)", text, address);
	int rc = units_parse_number("--ready: the port", colon + 1, 1, 65535, &port, err);
	if (rc < 0)
		return rc;
	pb_set_string(&p->ready_address, address);
	p->ready_port = (uint32_t)port;
	p->ready_by = READY(PORT);
	return 0;
}

static int set_ready(const struct invocation *inv, Gantry__HaPolicy *p, bool *changed, struct err *err)
{
	const char *text = invocation_option(inv, "ready");

	if (text == NULL)
		return 0;
	*changed = true;
	if (strncmp(text, "port:", 5) == 0)
		return set_port(text + 5, p, err);
	if (strcmp(text, "running") == 0)
		p->ready_by = READY(RUNNING);
	else if (strcmp(text, "agent") == 0)
		p->ready_by = READY(AGENT);
	else if (strcmp(text, "time") == 0)
		p->ready_by = READY(TIME);
	else
		return err_set_status(err, EINVAL, USAGE, "--ready '%.60s' has to be running, agent, time or port:ADDRESS:PORT", text);
	pb_set_string(&p->ready_address, NULL);
	p->ready_port = 0;
	return 0;
}

static int check_hung(const Gantry__HaPolicy *p, struct err *err)
{
	if (p->hung_s != 0 && p->hung_s < HA_HUNG_S_MIN)
		return err_set_status(err, EINVAL, USAGE, "--hung '%u s' has to be 0 (never), or at least %d s: the guest agent is asked every 5 s",
				      p->hung_s, HA_HUNG_S_MIN);
	return 0;
}

int ha_policy_change(const struct invocation *inv, Gantry__HaPolicy *p, bool *ret_changed, struct err *err)
{
	bool leave = p->isolation == LEAVE, way = p->gives_way, changed = false;
	int rc = set_figure(inv, "priority", units_parse_number, HA_PRIORITY_MAX, &p->priority, &changed, err);

	if (rc == 0)
		rc = set_figure(inv, "order", units_parse_number, HA_ORDER_MAX, &p->order, &changed, err);
	if (rc == 0)
		rc = set_figure(inv, "restarts", units_parse_number, HA_RESTARTS_MAX, &p->restarts, &changed, err);
	if (rc == 0)
		rc = set_figure(inv, "delay", units_parse_seconds, HA_SECONDS_MAX, &p->delay_s, &changed, err);
	if (rc == 0)
		rc = set_figure(inv, "ready-time", units_parse_seconds, HA_SECONDS_MAX, &p->ready_s, &changed, err);
	if (rc == 0)
		rc = set_figure(inv, "hung", units_parse_seconds, HA_SECONDS_MAX, &p->hung_s, &changed, err);
	if (rc == 0)
		rc = check_hung(p, err);
	if (rc == 0)
		rc = set_ready(inv, p, &changed, err);
	if (rc == 0)
		rc = set_word(inv, "isolation", "stop", "leave", &leave, &changed, err);
	if (rc == 0)
		rc = set_word(inv, "gives-way", "no", "yes", &way, &changed, err);
	if (rc < 0)
		return rc;
	p->isolation = leave ? LEAVE : STOP;
	p->gives_way = way;
	*ret_changed = changed;
	return 0;
}

/* ---- for people */

char *ha_policy_ready_text(const Gantry__HaPolicy *p)
{
	switch (p->ready_by) {
	case READY(AGENT):
		return str_dup("agent");
	case READY(PORT):
		return str_printf(strchr(p->ready_address, ':') ? "port [%s]:%u" : "port %s:%u", p->ready_address, p->ready_port);
	case READY(TIME):
		return str_printf("time %u s", p->ready_s);
	default:
		return str_dup("running");
	}
}

char *ha_policy_text(const Gantry__HaPolicy *p)
{
	_cleanup_free_ char *ready = ha_policy_ready_text(p);
	struct buf text = {0};

	buf_printf(&text, "priority %u, order %u, ready by %s", p->priority, p->order, ready);
	if (p->ready_by == READY(AGENT) || p->ready_by == READY(PORT))
		buf_printf(&text, " (waited for %u s)", p->ready_s);
	if (p->delay_s)
		buf_printf(&text, ", then %u s until the next order", p->delay_s);
	buf_printf(&text, ", %u restart%s on one host, %s on a host without quorum", p->restarts, p->restarts == 1 ? "" : "s",
		   p->isolation == LEAVE ? "left running" : "stopped");
	if (p->gives_way)
		buf_printf(&text, ", gives way");
	if (p->hung_s)
		buf_printf(&text, ", hung after %u s", p->hung_s);
	char *all = str_dup(buf_str(&text));
	buf_free(&text);
	return all;
}

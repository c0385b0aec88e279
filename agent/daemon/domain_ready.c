#include "agent/daemon/domain_ready.h"

#include <stdlib.h>
#include <string.h>

#include "agent/daemon/domain_end.h"
#include "agent/daemon/guest_agent.h"
#include "lib/buf.h"
#include "lib/cleanup.h"

#define PROBE_EVERY_MS 1000
#define PROBE_TAKES_MS 2000

/* One try to connect. Freed when its handle is closed. */
struct port_probe {
	struct domain *domain; /* NULL once the domain lost interest */
	uv_tcp_t tcp;
	uv_connect_t connect;
	uint64_t since_ms;
};

static void domain_ready__is(struct domain *d)
{
	d->ready = true;
	agent_set_text(&d->ready_trouble, NULL);
	agent_wake(d->agent);
}

/* ---- a port ---- */

static void domain_ready__on_probe_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void domain_ready__end_probe(struct domain *d)
{
	struct port_probe *probe = d->probe;

	if (probe == NULL)
		return;
	d->probe = NULL;
	probe->domain = NULL;
	uv_close((uv_handle_t *)&probe->tcp, domain_ready__on_probe_closed);
}

static void domain_ready__no_port(struct domain *d, const Gantry__HaPolicy *policy, const char *why)
{
	_cleanup_free_ char *text = str_printf("not ready: port %u at %s: %s", policy->ready_port,
					       policy->ready_address[0] != '\0' ? policy->ready_address : "no address", why);

	agent_set_text(&d->ready_trouble, text);
}

static void domain_ready__on_connected(uv_connect_t *connect, int status)
{
	struct port_probe *probe = connect->data;
	struct domain *d = probe->domain;
	const Gantry__DomainGoal *goal;

	if (d == NULL)
		return;
	goal = agent_goal(d->agent, d->uuid);
	domain_ready__end_probe(d);
	if (status == 0)
		domain_ready__is(d);
	else if (goal != NULL && goal->policy != NULL)
		domain_ready__no_port(d, goal->policy, uv_strerror(status));
}

static void domain_ready__begin_probe(struct domain *d, const Gantry__HaPolicy *policy, uint64_t now)
{
	struct port_probe *probe;
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} to;
	int rc;

	d->probe_at_ms = now;
	if (policy->ready_port == 0 || policy->ready_port > UINT16_MAX ||
	    (uv_ip4_addr(policy->ready_address, (int)policy->ready_port, &to.v4) < 0 &&
	     uv_ip6_addr(policy->ready_address, (int)policy->ready_port, &to.v6) < 0)) {
		domain_ready__no_port(d, policy, "its policy names no IP address and port of the guest");
		return;
	}
	probe = d->probe = mem_alloc(sizeof(*probe));
	probe->domain = d;
	probe->since_ms = now;
	probe->tcp.data = probe->connect.data = probe;
	uv_tcp_init(d->agent->loop, &probe->tcp);
	rc = uv_tcp_connect(&probe->connect, &probe->tcp, &to.any, domain_ready__on_connected);
	if (rc < 0) {
		domain_ready__end_probe(d);
		domain_ready__no_port(d, policy, uv_strerror(rc));
	}
}

static void domain_ready__port(struct domain *d, const Gantry__HaPolicy *policy, uint64_t now)
{
	if (d->probe != NULL && now - d->probe->since_ms >= PROBE_TAKES_MS) {
		domain_ready__end_probe(d);
		domain_ready__no_port(d, policy, "no answer; does this host reach the guest's network?");
	}
	if (d->probe == NULL && d->actual == ACTUAL_RUNNING && (d->probe_at_ms == 0 || now - d->probe_at_ms >= PROBE_EVERY_MS))
		domain_ready__begin_probe(d, policy, now);
}

/* ---- by policy ---- */

static void domain_ready__look(struct domain *d, const Gantry__HaPolicy *policy, uint64_t now)
{
	Gantry__ReadyBy by = policy != NULL ? policy->ready_by : GANTRY__READY_BY__READY_BY_RUNNING;

	if (by != GANTRY__READY_BY__READY_BY_PORT)
		domain_ready__end_probe(d);
	if (d->copy) {
		domain_ready__is(d);
		return;
	}
	switch (by) {
	case GANTRY__READY_BY__READY_BY_TIME:
		if (now - d->run_at_ms >= (uint64_t)policy->ready_s * 1000)
			domain_ready__is(d);
		else
			agent_set_text(&d->ready_trouble, "not ready: it has not run for the time of its policy yet");
		return;
	case GANTRY__READY_BY__READY_BY_PORT:
		domain_ready__port(d, policy, now);
		return;
	case GANTRY__READY_BY__READY_BY_AGENT:
		if (d->guest_watch.heard)
			domain_ready__is(d);
		else
			agent_set_text(&d->ready_trouble, "not ready: its guest agent has not answered yet");
		return;
	default:
		domain_ready__is(d);
		return;
	}
}

static void domain_ready__hung(struct domain *d, uint32_t hung_s)
{
	_cleanup_free_ char *why = str_printf("hung: the guest agent was silent for %u s", hung_s);

	domain_end_hung(d, why);
}

void domain_ready_tend(struct domain *d, const Gantry__DomainGoal *goal)
{
	const Gantry__HaPolicy *policy = goal != NULL && goal->generation == d->generation ? goal->policy : NULL;
	uint32_t hung_s = policy != NULL ? policy->hung_s : 0;
	uint64_t now = agent_now_ms(d->agent);

	guest_agent_tend(d, hung_s);
	if (guest_watch_tick(&d->guest_watch, now, d->actual == ACTUAL_RUNNING, hung_s)) {
		domain_ready__hung(d, hung_s);
		return;
	}
	if (d->run_at_ms == 0 && d->actual == ACTUAL_RUNNING)
		d->run_at_ms = now;
	if (!d->ready && d->run_at_ms != 0 && goal != NULL && goal->generation == d->generation)
		domain_ready__look(d, policy, now);
}

const char *domain_ready_reason(const struct domain *d)
{
	return d->ready ? NULL : d->ready_trouble;
}

void domain_ready_forget(struct domain *d)
{
	domain_ready__end_probe(d);
	guest_agent_detach(d);
	d->guest_watch = (struct guest_watch){0};
	d->ready = false;
	d->run_at_ms = d->probe_at_ms = 0;
	agent_set_text(&d->ready_trouble, NULL);
}

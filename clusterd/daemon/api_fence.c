/* Tests of a host's fence devices, each by itself. What has been switched off is switched on again, also when the client has gone. */
#include <stdlib.h>
#include <string.h>

#include "clusterd/daemon/api_internal.h"
#include "fencing/fence_agent.h"
#include "lib/log.h"
#include "proto/pb.h"

#define SEEN_POLL_MS 500
#define SEEN_STAYS_MS 10000   /* a host that is online still, so long after one device switched it off, has another supply */
#define SEEN_HELD_MS 20000    /* lost, and nobody fences it */
#define SEEN_MAX_MS 60000

enum step { STEP_STATUS, STEP_OFF, STEP_SEEN, STEP_ON };

struct api_fence_test {
	struct api_fence_test *next;
	struct api *api;
	struct api_client *client;   /* NULL: gone */
	uint64_t id;
	Gantry__Host *host;
	bool really, failed, device_failed, closing;
	bool is_off;                 /* by us */
	size_t at;                   /* of host->fence */
	enum step step;
	uint64_t step_began_ms;
	struct fence_run *run;
	uv_timer_t timer;
};

/* ---- what is told */

static void tell(struct api_fence_test *t, const char *action, bool ok, const char *text)
{
	const Gantry__FenceDevice *d = t->host->fence[t->at];
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlFenceTested body = GANTRY__CTL_FENCE_TESTED__INIT;

	t->device_failed = t->device_failed || !ok;
	t->failed = t->failed || !ok;
	if (!t->client)
		return;
	body.agent = d->agent;
	body.level = d->level;
	body.action = (char *)action;
	body.ok = ok;
	body.text = (char *)text;
	body.took_ms = uv_now(t->api->loop) - t->step_began_ms;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_FENCE_TESTED;
	message.fence_tested = &body;
	api__send(t->client, t->id, &message);
}

static void tell_end(struct api_fence_test *t)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlFenceTested body = GANTRY__CTL_FENCE_TESTED__INIT;

	if (!t->client)
		return;
	body.ok = !t->failed;
	body.ended = true;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_FENCE_TESTED;
	message.fence_tested = &body;
	api__send(t->client, t->id, &message);
}

static void on_noted(void *data, const Gantry__CommandResult *result)
{
}

/* Why a host was lost for a while is looked for in the history. */
static void note(struct api_fence_test *t, Gantry__EventSeverity severity, const char *what)
{
	const Gantry__FenceDevice *d = t->host->fence[t->at];
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdEventNote body = GANTRY__CMD_EVENT_NOTE__INIT;

	body.severity = severity;
	body.subject = str_printf("host %s", t->host->name);
	body.kind = (char *)"fence-test";
	body.text = str_printf("test of %s at level %u, asked for on %s: %s", d->agent, d->level, t->api->config.host, what);
	command.body_case = GANTRY__COMMAND__BODY_EVENT_NOTE;
	command.event_note = &body;
	t->api->ops.propose(t->api->data, &command, on_noted, NULL);
	free(body.subject);
	free(body.text);
}

/* ---- the end */

static void on_timer_closed(uv_handle_t *handle)
{
	struct api_fence_test *t = handle->data, **at = &t->api->fence_tests;
	struct api *api = t->api;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	gantry__host__free_unpacked(t->host, NULL);
	free(t);
	api__maybe_closed(api);
}

static void test_end(struct api_fence_test *t)
{
	if (t->is_off)
		log_warning("host %s is off: a fence test switched it off, and did not get it on again", t->host->name);
	uv_close((uv_handle_t *)&t->timer, on_timer_closed);
}

void api__fence_tests_client_gone(struct api_client *client)
{
	for (struct api_fence_test *t = client->api->fence_tests; t; t = t->next)
		if (t->client == client)
			t->client = NULL;
}

void api__fence_tests_close(struct api *api)
{
	for (struct api_fence_test *t = api->fence_tests; t; t = t->next) {
		if (t->closing)
			continue;
		t->closing = true;
		t->client = NULL;
		uv_timer_stop(&t->timer);
		if (t->run)
			fence_cancel(t->run);
		else if (!uv_is_closing((uv_handle_t *)&t->timer))
			test_end(t);
	}
}

/* ---- the steps */

static bool is_watchdog(const Gantry__FenceDevice *d)
{
	return !strcmp(d->agent, FENCE_WATCHDOG);
}

static void go_on(struct api_fence_test *t, enum step step)
{
	t->step = step;
	t->step_began_ms = uv_now(t->api->loop);
	uv_timer_start(&t->timer, api__fence_test_step, 0, 0);
}

static void next_device(struct api_fence_test *t)
{
	if (t->really && !is_watchdog(t->host->fence[t->at]))
		note(t, t->device_failed ? GANTRY__EVENT_SEVERITY__EVENT_WARNING : GANTRY__EVENT_SEVERITY__EVENT_INFO,
		     t->device_failed ? "failed" : "it switched the host off and on again");
	t->at++;
	t->device_failed = false;
	go_on(t, STEP_STATUS);
}

static void after_status(struct api_fence_test *t, int rc, const char *text)
{
	bool off = rc == 0 && !strcmp(text, "off");

	if (t->really && off)
		tell(t, "status", false, "off already, so that switching would show nothing: switch it on and test again");
	else
		tell(t, "status", rc == 0, text);
	if (t->really && rc == 0 && !off)
		go_on(t, STEP_OFF);
	else
		next_device(t);
}

static void after_off(struct api_fence_test *t, int rc, const char *text)
{
	tell(t, "off", rc == 0, text);
	/* One that failed may have switched it off all the same. */
	go_on(t, rc == 0 ? STEP_SEEN : STEP_ON);
}

static void after_on(struct api_fence_test *t, int rc, const char *text)
{
	t->is_off = rc != 0;
	tell(t, "on", rc == 0, text);
	next_device(t);
}

static void on_run_end(void *data, int rc, bool by_time, const char *proof, const struct err *err)
{
	struct api_fence_test *t = data;
	const char *text = rc == 0 ? proof : err->text;

	t->run = NULL;
	if (t->closing)
		test_end(t);
	else if (t->step == STEP_STATUS)
		after_status(t, rc, text);
	else if (t->step == STEP_OFF)
		after_off(t, rc, text);
	else
		after_on(t, rc, text);
}

/* What would be lost if the host were switched off now: names, or nothing. */
static void list_domains(struct api *api, const char *host, struct buf *out)
{
	const Gantry__ClusterModel *s = api->ops.model(api->data)->state;

	for (size_t i = 0; i < s->n_domains; i++)
		if (!strcmp(s->domains[i]->host, host))
			buf_printf(out, "%s%s", out->len ? ", " : "", s->domains[i]->spec->name);
	for (size_t i = 0; i < s->n_jobs; i++)
		if (s->jobs[i]->kind == GANTRY__JOB_KIND__JOB_KIND_MIGRATE && s->jobs[i]->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING &&
		    !strcmp(s->jobs[i]->destination, host))
			buf_printf(out, "%s%s (on its way there)", out->len ? ", " : "", s->jobs[i]->domain_name);
}

static const char *step_word(enum step step)
{
	static const char *const words[] = {[STEP_STATUS] = "status", [STEP_OFF] = "off", [STEP_SEEN] = "seen", [STEP_ON] = "on"};

	return words[step];
}

/* True: it has got work, or the quorum is gone, since the last look. */
static bool may_not_switch_off(struct api_fence_test *t)
{
	struct buf names = {0};
	char text[256] = "";

	list_domains(t->api, t->host->name, &names);
	if (!t->api->ops.is_current(t->api->data))
		snprintf(text, sizeof(text), "not done: host %s is not in the quorum any more, and does not know what runs there", t->api->config.host);
	else if (names.len)
		snprintf(text, sizeof(text), "not done: it has got domains meanwhile: %.160s", buf_str(&names));
	buf_free(&names);
	if (!text[0])
		return false;
	tell(t, "off", false, text);
	return true;
}

static void run_step(struct api_fence_test *t)
{
	struct fence_target target = {.host = t->host->name, .devices = &t->host->fence[t->at], .n_devices = 1};
	struct err err = {0};
	int rc;

	if (t->step == STEP_OFF && may_not_switch_off(t)) {
		next_device(t);
		return;
	}
	if (t->step == STEP_OFF) {
		note(t, GANTRY__EVENT_SEVERITY__EVENT_WARNING, "the host is switched off, and on again");
		t->is_off = true;
		rc = fence_off(t->api->loop, &target, on_run_end, t, &t->run, &err);
	} else if (t->step == STEP_ON) {
		rc = fence_on(t->api->loop, &target, on_run_end, t, &t->run, &err);
	} else {
		rc = fence_status(t->api->loop, &target, on_run_end, t, &t->run, &err);
	}
	if (rc < 0) {
		tell(t, step_word(t->step), false, err.text);
		next_device(t);
	}
}

static void tell_watchdog(struct api_fence_test *t)
{
	const Gantry__Host *h = model_host(t->api->ops.model(t->api->data), t->host->name);
	bool there = h && h->watchdog[0];
	char *text = there ? str_printf("its agent feeds %s%s", h->watchdog, t->really ? "; whether that resets the host is not tried" : "") :
			     str_dup("its agent reports no watchdog: set 'watchdog' in its /etc/gantry/host.yaml, or take this device away");

	tell(t, "status", there, text);
	free(text);
	next_device(t);
}

/* Switched on before the cluster has dealt with its death, it would be fenced while it boots. */
static void look_whether_seen(struct api_fence_test *t)
{
	const struct model *model = t->api->ops.model(t->api->data);
	const Gantry__Host *h = model_host(model, t->host->name);
	uint64_t since = uv_now(t->api->loop) - t->step_began_ms;
	bool dead = !h || h->state == GANTRY__HOST_STATE__HOST_STATE_DEAD || h->state == GANTRY__HOST_STATE__HOST_STATE_JOINING;
	bool disarmed = model->state->ha && model->state->ha->disarmed;
	bool held = h && h->state == GANTRY__HOST_STATE__HOST_STATE_LOST && (disarmed || since >= SEEN_HELD_MS);
	bool stays = h && h->state == GANTRY__HOST_STATE__HOST_STATE_ONLINE && since >= SEEN_STAYS_MS;

	if (!dead && !held && !stays && since < SEEN_MAX_MS) {
		uv_timer_start(&t->timer, api__fence_test_step, SEEN_POLL_MS, 0);
		return;
	}
	tell(t, "seen", true, dead ? "the cluster holds it for dead" : held ? "the cluster has lost it, and does not fence it: see 'clusterctl fence history'" :
	     stays ? "the cluster does not miss it: has it another power supply?" : "the cluster has not proven it dead by itself");
	go_on(t, STEP_ON);
}

void api__fence_test_step(uv_timer_t *timer)
{
	struct api_fence_test *t = timer->data;

	/* Nothing is begun that nobody waits for. */
	if (t->at == t->host->n_fence || (!t->client && (t->step == STEP_STATUS || t->step == STEP_OFF))) {
		tell_end(t);
		test_end(t);
		return;
	}
	if (is_watchdog(t->host->fence[t->at]))
		tell_watchdog(t);
	else if (t->step == STEP_SEEN)
		look_whether_seen(t);
	else
		run_step(t);
}

/* ---- the request */

static bool is_under_way(const struct api *api, const char *host)
{
	for (const struct api_fence_test *t = api->fence_tests; t; t = t->next)
		if (!strcmp(t->host->name, host))
			return true;
	return false;
}

/* Whether the host may be switched off. False: answered. */
static bool may_switch(struct api_client *client, uint64_t id, const Gantry__Host *h)
{
	struct api *api = client->api;
	struct buf names = {0};
	bool may = false;

	list_domains(api, h->name, &names);
	if (!strcmp(h->name, api->config.host))
		api__error(client, id, STATUS(CONSTRAINT), "host '%s' is the one that is asked, and cannot switch itself on again: ask another host "
			   "(clusterctl --host ADDRESS fence test %s --really --yes)", h->name, h->name);
	else if (!api->ops.is_current(api->data))
		api__error(client, id, STATUS(NO_QUORUM), "host %s is not in the quorum now, and does not know what runs on host '%s'; ask a host that is",
			   api->config.host, h->name);
	else if (names.len)
		api__error(client, id, STATUS(CONSTRAINT), "host '%s' is not switched off while it runs domains: %.300s; move them away ('clusterctl "
			   "migrate') or shut them down first", h->name, buf_str(&names));
	else if (h->leftovers)
		api__error(client, id, STATUS(CONSTRAINT), "host '%s' is not switched off while it runs %u QEMUs that the cluster does not know; see "
			   "'clusterctl cluster verify'", h->name, h->leftovers);
	else
		may = true;
	buf_free(&names);
	return may;
}

void api__on_fence_test(struct api_client *client, uint64_t id, const Gantry__CtlFenceTest *request)
{
	struct api *api = client->api;
	const Gantry__Host *h = model_host(api->ops.model(api->data), request->host);
	struct api_fence_test *t;

	if (!h) {
		api__error(client, id, STATUS(NO_SUCH), "no host '%.60s'; see 'clusterctl host list'", request->host);
		return;
	}
	if (!h->n_fence) {
		api__error(client, id, STATUS(CONSTRAINT), "host '%s' has no fence device: give it one with 'clusterctl fence set %s AGENT key=value...'",
			   h->name, h->name);
		return;
	}
	if (is_under_way(api, h->name)) {
		api__error(client, id, STATUS(RETRY), "host '%s': a test of its fence devices is under way: wait for its end", h->name);
		return;
	}
	if (request->really && !may_switch(client, id, h))
		return;
	t = mem_alloc(sizeof(*t));
	t->api = api;
	t->client = client;
	t->id = id;
	t->host = pb_clone(h);
	t->really = request->really;
	t->next = api->fence_tests;
	api->fence_tests = t;
	uv_timer_init(api->loop, &t->timer);
	t->timer.data = t;
	go_on(t, STEP_STATUS);
}

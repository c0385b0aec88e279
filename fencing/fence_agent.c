#include "fencing/fence_agent.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/deadlines.h"
#include "lib/subprocess.h"
#include "proto/pb.h"

/* Exit statuses of a fence agent's `status` (the ClusterLabs fence agent interface). */
#define AGENT_OK 0
#define AGENT_STATUS_OFF 2

#define STATUS_REPEAT_MS 500
#define QUOTE_MAX 160 /* of what an agent said */

enum goal { GOAL_OFF, GOAL_ON, GOAL_TELL };

struct fence_run {
	uv_loop_t *loop;
	uv_timer_t timer;            /* between two looks at the status, and of a watchdog */
	struct subprocess *running;
	char *host, *watchdog;       /* what the host said of its own last; NULL: nothing */
	Gantry__FenceDevice **devices; /* by level */
	size_t n, at;
	enum goal goal;
	bool asking_status, cancelled, done;
	bool by_time;                /* of what `agreed` says */
	uint64_t device_started_ms;
	struct buf agreed, failed;   /* what is said in the end */
	fence_cb cb;
	void *data;
};

static void run_free(uv_handle_t *timer)
{
	struct fence_run *r = timer->data;

	for (size_t i = 0; i < r->n; i++)
		gantry__fence_device__free_unpacked(r->devices[i], NULL);
	free(r->devices);
	free(r->host);
	free(r->watchdog);
	buf_free(&r->agreed);
	buf_free(&r->failed);
	free(r);
}

static void finish(struct fence_run *r, int rc, const struct err *err)
{
	if (r->done)
		return;
	r->done = true;
	r->cb(r->data, rc, rc == 0 && r->by_time, rc ? NULL : buf_str(&r->agreed), err);
	uv_close((uv_handle_t *)&r->timer, run_free);
}

static bool is_watchdog(const Gantry__FenceDevice *d)
{
	return !strcmp(d->agent, FENCE_WATCHDOG);
}

static uint32_t timeout_ms(const Gantry__FenceDevice *d)
{
	uint32_t s = d->timeout_s ? d->timeout_s : FENCE_TIMEOUT_DEFAULT_S;

	return (s < FENCE_TIMEOUT_MAX_S ? s : FENCE_TIMEOUT_MAX_S) * 1000;
}

/* The agents strip blanks around a line and skip one that begins with '#': " action" would be another action. */
static bool key_ok(const char *key)
{
	return *key && !key[strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")];
}

/* What the agent reads: one key=value a line. A line break in a value would be another option. */
static int options_text(const struct fence_run *r, const Gantry__FenceDevice *d, const char *action, struct buf *out, struct err *err)
{
	bool names_plug = false;

	buf_printf(out, "action=%s\n", action);
	for (size_t i = 0; i < d->n_params; i++) {
		const Gantry__FenceParam *p = d->params[i];

		/* A bad key is not repeated: it may be half of "password=..." torn apart in the wrong place. */
		if (!key_ok(p->key))
			return err_set(err, EINVAL, "%s: the name of parameter %zu is not made of letters, digits, '_', '-' and '.'; set it anew",
				       d->agent, i + 1);
		if (strpbrk(p->value, "\n\r"))
			return err_set(err, EINVAL, "%s: the value of '%s' has a line break; set it anew without", d->agent, p->key);
		if (!strcmp(p->key, "action") || !strcmp(p->key, "option"))
			continue;
		names_plug = names_plug || !strcmp(p->key, "plug") || !strcmp(p->key, "port");
		buf_printf(out, "%s=%s\n", p->key, p->value);
	}
	if (!names_plug)
		buf_printf(out, "plug=%s\n", r->host);
	return 0;
}

static void next_device(struct fence_run *r);

static const char *goal_word(const struct fence_run *r)
{
	return r->goal == GOAL_ON ? "on" : "off";
}

/* One that does not agree fails its whole level. */
static void level_failed(struct fence_run *r, const char *why)
{
	uint32_t level = r->devices[r->at]->level;

	buf_printf(&r->failed, "%s%s (level %u): %s", r->failed.len ? "; " : "", r->devices[r->at]->agent, level, why);
	while (r->at < r->n && r->devices[r->at]->level == level)
		r->at++;
	buf_consume(&r->agreed, r->agreed.len);
	r->by_time = false;
}

static void device_failed(struct fence_run *r, const char *why)
{
	level_failed(r, why);
	next_device(r);
}

static void device_agreed(struct fence_run *r)
{
	const Gantry__FenceDevice *d = r->devices[r->at];
	double seconds = (uv_now(r->loop) - r->device_started_ms) / 1000.0;

	buf_printf(&r->agreed, "%s%s at level %u: ", r->agreed.len ? "; " : "", d->agent, d->level);
	if (is_watchdog(d))
		buf_printf(&r->agreed, "it did not feed it for %u s", DEADLINE_PROOF_BY_TIME_MS / 1000);
	else
		buf_printf(&r->agreed, "%s, status %s, %.1f s", goal_word(r), goal_word(r), seconds);
	r->by_time = r->by_time || is_watchdog(d);
	if (r->at + 1 < r->n && r->devices[r->at + 1]->level == d->level) {
		r->at++;
		next_device(r);
		return;
	}
	finish(r, 0, NULL);
}

static void ask_status(struct fence_run *r);

static void on_timer(uv_timer_t *timer)
{
	struct fence_run *r = timer->data;

	if (is_watchdog(r->devices[r->at]))
		device_agreed(r);
	else
		ask_status(r);
}

static size_t longer_secret(const Gantry__FenceParam *p, const char *at, size_t longest)
{
	const char *value = p->value;
	size_t len = strlen(value);

	for (; len && isspace((unsigned char)*value); value++)
		len--;
	while (len && isspace((unsigned char)value[len - 1]))
		len--;
	if (len > 2 && value[0] == '"' && value[len - 1] == '"') {
		value++;
		len -= 2;
	}
	return len > longest && !strncmp(at, value, len) ? len : longest;
}

/* How many bytes at `at` are a secret, in the form in which agents read it: without blanks and quotes around it. Of any
 * device: two outlets of one rack often share theirs. */
static size_t secret_at(const struct fence_run *r, const char *at)
{
	size_t longest = 0;

	for (size_t i = 0; i < r->n; i++)
		for (size_t k = 0; k < r->devices[i]->n_params; k++)
			if (r->devices[i]->params[k]->secret)
				longest = longer_secret(r->devices[i]->params[k], at, longest);
	return longest;
}

/* Agents repeat an option that they do not know, with its value. Only ASCII goes on, so that it can be cut anywhere and shown on any terminal. */
static void hide_secrets(const struct fence_run *r, const char *text, struct buf *out)
{
	while (*text) {
		size_t len = secret_at(r, text);

		if (len)
			buf_printf(out, "***");
		else
			buf_printf(out, "%c", *text == '\n' || isprint((unsigned char)*text) ? *text : '?');
		text += len ? len : 1;
	}
}

/* The last line that says something: a hint to the manual, which Debian's agents end with, does not. */
static const char *last_line(char *text, size_t len)
{
	const char *hint = "";

	while (len) {
		char *start;

		while (len && (text[len - 1] == '\n' || text[len - 1] == ' '))
			len--;
		text[len] = '\0';
		start = strrchr(text, '\n');
		start = start ? start + 1 : text;
		if (*start && !strstr(start, "for usage"))
			return start;
		if (!*hint)
			hint = start;
		len = start - text;
	}
	return hint;
}

static void describe(const struct fence_run *r, const struct subprocess_result *result, const char *action, char *out, size_t size)
{
	struct buf text = {0};
	const char *line;

	if (result->rc == -ETIMEDOUT) {
		snprintf(out, size, "'%s' did not end within %u s", action, timeout_ms(r->devices[r->at]) / 1000);
		return;
	}
	if (result->rc < 0) {
		snprintf(out, size, "cannot be run: %s", strerror(-result->rc));
		return;
	}
	hide_secrets(r, result->err_out ? result->err_out : "", &text);
	buf_str(&text); /* ends it */
	line = text.len ? last_line((char *)text.data, text.len) : "";
	snprintf(out, size, "'%s' failed with status %d%s%.*s", action, result->exit_status, *line ? ": " : "", QUOTE_MAX, line);
	buf_free(&text);
}

/* The device says that the host is in this state. */
static void on_state(struct fence_run *r, bool on)
{
	char why[80];

	if (r->goal == GOAL_TELL) {
		buf_printf(&r->agreed, on ? "on" : "off");
		finish(r, 0, NULL);
	} else if (on == (r->goal == GOAL_ON)) {
		device_agreed(r);
	} else if (uv_now(r->loop) - r->device_started_ms >= timeout_ms(r->devices[r->at])) {
		snprintf(why, sizeof(why), "it was told to switch %s and still says %s", goal_word(r), on ? "on" : "off");
		device_failed(r, why);
	} else {
		uv_timer_start(&r->timer, on_timer, STATUS_REPEAT_MS, 0);
	}
}

static void on_status(struct fence_run *r, const struct subprocess_result *result)
{
	char why[256];

	if (result->rc == 0 && (result->exit_status == AGENT_OK || result->exit_status == AGENT_STATUS_OFF)) {
		on_state(r, result->exit_status == AGENT_OK);
		return;
	}
	describe(r, result, "status", why, sizeof(why));
	device_failed(r, why);
}

static void on_switched(struct fence_run *r, const struct subprocess_result *result)
{
	char why[256];

	if (result->rc == 0 && result->exit_status == AGENT_OK) {
		ask_status(r);
		return;
	}
	describe(r, result, goal_word(r), why, sizeof(why));
	device_failed(r, why);
}

static void on_agent_end(void *data, const struct subprocess_result *result)
{
	struct fence_run *r = data;
	struct err err = {0};

	r->running = NULL;
	if (r->cancelled) {
		finish(r, err_set(&err, ECANCELED, "%s: fencing was cancelled", r->host), &err);
		return;
	}
	uv_update_time(r->loop);
	if (r->asking_status)
		on_status(r, result);
	else
		on_switched(r, result);
}

static int run_agent(struct fence_run *r, const char *action, struct err *err)
{
	const Gantry__FenceDevice *d = r->devices[r->at];
	const char *argv[] = {d->agent, NULL};
	struct buf text = {0};
	struct subprocess_options options = {.argv = argv, .timeout_ms = timeout_ms(d)};
	int rc;

	/* Only what is made for this is run, whatever the model says. */
	if (strncmp(d->agent, "fence_", 6) || strchr(d->agent, '/'))
		return err_set(err, EINVAL, "'%s' is not the name of a fence agent (fence_...)", d->agent);
	rc = options_text(r, d, action, &text, err);
	if (!rc) {
		options.stdin_text = buf_str(&text);
		rc = subprocess_run(r->loop, &options, on_agent_end, r, &r->running, err);
	}
	if (text.len)
		explicit_bzero(text.data, text.len);
	buf_free(&text);
	return rc;
}

static void ask_status(struct fence_run *r)
{
	struct err err = {0};

	r->asking_status = true;
	if (run_agent(r, "status", &err) < 0)
		device_failed(r, err.text);
}

/* It runs no program: a host that does not feed its watchdog has been reset when this time is over (agent/core/selffence.h). Where
 * none was reported, nothing resets the host, and time proves nothing. */
static int run_watchdog(struct fence_run *r, struct err *err)
{
	if (r->goal != GOAL_OFF)
		return err_set(err, EINVAL, "a watchdog cannot be asked, and switches nothing on");
	if (!r->watchdog || !*r->watchdog)
		return err_set(err, ENODEV, "%s has reported none, so that time proves nothing about it", r->host);
	/* The loop's time may be old, and a deadline that is counted from it early. */
	uv_update_time(r->loop);
	return uv_timer_start(&r->timer, on_timer, DEADLINE_PROOF_BY_TIME_MS, 0);
}

static int run_device(struct fence_run *r, struct err *err)
{
	r->device_started_ms = uv_now(r->loop);
	r->asking_status = r->goal == GOAL_TELL;
	if (is_watchdog(r->devices[r->at]))
		return run_watchdog(r, err);
	return run_agent(r, r->asking_status ? "status" : goal_word(r), err);
}

static void next_device(struct fence_run *r)
{
	static const char *const texts[] = {
		[GOAL_OFF] = "%s is not proven off: %s", [GOAL_ON] = "%s is not proven on: %s", [GOAL_TELL] = "nobody can tell whether %s is on: %s"};
	struct err err = {0};

	while (r->at < r->n) {
		if (run_device(r, &err) == 0)
			return;
		/* Not recursive through device_failed(): each device is passed once. */
		level_failed(r, err.text);
	}
	finish(r, err_set(&err, EHOSTUNREACH, texts[r->goal], r->host, buf_str(&r->failed)), &err);
}

static int by_level(const void *a, const void *b)
{
	const Gantry__FenceDevice *x = *(Gantry__FenceDevice *const *)a, *y = *(Gantry__FenceDevice *const *)b;

	return x->level < y->level ? -1 : x->level > y->level;
}

static void on_begin(uv_timer_t *timer)
{
	next_device(timer->data);
}

static int start(uv_loop_t *loop, const struct fence_target *target, enum goal goal, fence_cb cb, void *data, struct fence_run **ret,
		 struct err *err)
{
	struct fence_run *r;

	if (!target->n_devices)
		return err_set(err, ENODEV, "%s has no fence device: give it one with 'clusterctl fence set %s AGENT key=value...'",
			       target->host, target->host);
	r = mem_alloc(sizeof(*r));
	r->loop = loop;
	r->host = str_dup(target->host);
	r->watchdog = target->watchdog ? str_dup(target->watchdog) : NULL;
	r->devices = mem_alloc(target->n_devices * sizeof(*r->devices));
	for (r->n = 0; r->n < target->n_devices; r->n++)
		r->devices[r->n] = pb_clone(target->devices[r->n]);
	qsort(r->devices, r->n, sizeof(*r->devices), by_level);
	r->goal = goal;
	r->cb = cb;
	r->data = data;
	uv_timer_init(loop, &r->timer);
	r->timer.data = r;
	/* From the loop, so that nothing is called back before this has returned. */
	uv_timer_start(&r->timer, on_begin, 0, 0);
	if (ret)
		*ret = r;
	return 0;
}

int fence_off(uv_loop_t *loop, const struct fence_target *target, fence_cb cb, void *data, struct fence_run **ret, struct err *err)
{
	return start(loop, target, GOAL_OFF, cb, data, ret, err);
}

int fence_on(uv_loop_t *loop, const struct fence_target *target, fence_cb cb, void *data, struct fence_run **ret, struct err *err)
{
	return start(loop, target, GOAL_ON, cb, data, ret, err);
}

int fence_status(uv_loop_t *loop, const struct fence_target *target, fence_cb cb, void *data, struct fence_run **ret, struct err *err)
{
	return start(loop, target, GOAL_TELL, cb, data, ret, err);
}

void fence_cancel(struct fence_run *r)
{
	struct err err = {0};

	if (r->done || r->cancelled)
		return;
	r->cancelled = true;
	uv_timer_stop(&r->timer);
	if (r->running)
		subprocess_cancel(r->running);
	else
		finish(r, err_set(&err, ECANCELED, "%s: fencing was cancelled", r->host), &err);
}

/* fence test, run, history: fencing done, and seen. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ctl_client.h"
#include "clusterctl/job_wait.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

/* ---- test */

static void print_step(const struct invocation *inv, const Gantry__CtlFenceTested *t)
{
	_cleanup_free_ char *took = units_format_ms(t->took_ms);

	if (inv->format == OUTPUT_TABLE || inv->format == OUTPUT_NAME) {
		printf("%s  level %u  %s  %-6s  %-6s  %s%s%s\n", inv->args[0], t->level, t->agent, t->action, t->ok ? "ok" : "FAILED", took,
		       t->text[0] ? "  " : "", t->text);
		return;
	}
	output_record(inv->format, pbjson_from_message(&t->base, true));
}

static int run_test(struct invocation *inv, struct ctl_client *c, Gantry__CtlMessage *request, bool *ret_ok)
{
	uint64_t id, deadline = inv->timeout_s ? ctl_now_ms() + inv->timeout_s * 1000ull : 0;
	bool ended = false;
	int rc = ctl_connect(c, &inv->err);

	if (rc == 0)
		rc = ctl_send(c, request, &id, &inv->err);
	while (rc == 0 && !ended) {
		Gantry__CtlMessage *m;
		rc = ctl_receive(c, id, deadline, &m, &inv->err);
		if (rc < 0)
			return rc;
		if (m->body_case == GANTRY__CTL_MESSAGE__BODY_FENCE_TESTED) {
			ended = m->fence_tested->ended;
			*ret_ok = m->fence_tested->ok;
			if (!ended)
				print_step(inv, m->fence_tested);
		}
		gantry__ctl_message__free_unpacked(m, NULL);
		if (fflush(stdout) != 0)
			return err_set(&inv->err, EPIPE, "the output cannot be written");
	}
	return rc;
}

int cmd_fence_test(struct invocation *inv)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlFenceTest body = GANTRY__CTL_FENCE_TEST__INIT;
	bool really = invocation_option(inv, "really") != NULL, ok = false;
	struct ctl_client *c;
	int rc = 0;

	if (really && invocation_option(inv, "yes") == NULL)
		rc = err_set_status(&inv->err, EPERM, STATUS(NEEDS_FORCE),
				    "--really switches host '%s' off and on again, by each of its devices; if that is what you want, say --yes as well",
				    inv->args[0]);
	if (rc == 0)
		rc = invocation_client(inv, &c);
	if (rc < 0)
		return rc;
	body.host = (char *)inv->args[0];
	body.really = really;
	request.body_case = GANTRY__CTL_MESSAGE__BODY_FENCE_TEST;
	request.fence_test = &body;
	rc = run_test(inv, c, &request, &ok);
	if (really && (rc == -EINTR || rc == -ETIMEDOUT))
		fprintf(stderr, "clusterctl: what was switched off is switched on again all the same; see 'clusterctl fence history %s'\n", inv->args[0]);
	if (rc == -EINTR)
		return 130;
	if (rc == 0 && !ok)
		return err_set_status(&inv->err, EREMOTEIO, STATUS(FAILED), "not every fence device of host '%s' works", inv->args[0]);
	return rc;
}

/* ---- run */

struct death {
	char *subject, *text;   /* text: of the newest event */
	bool dead;
};

/* Until it is dead, or no host any more, or left alone because its devices failed: a person's wish is carried out once. */
static bool on_death_event(void *data, const Gantry__Event *e)
{
	struct death *d = data;

	if (strcmp(e->subject, d->subject) != 0)
		return true;
	d->dead = strcmp(e->kind, "host-dead") == 0;
	free(d->text);
	d->text = str_dup(e->text);
	if (d->dead || strcmp(e->kind, "host-removed") == 0 || strcmp(e->kind, "host-online") == 0)
		return false;
	fprintf(stderr, "%s\n", e->text);
	return true;
}

static int wait_for_death(struct invocation *inv, uint64_t after_id)
{
	_cleanup_free_ char *subject = str_printf("host %s", inv->args[0]);
	struct death d = {.subject = subject};
	int rc = cmd_watch_events(inv, true, inv->timeout_s ? ctl_now_ms() + inv->timeout_s * 1000ull : 0, &after_id, on_death_event, &d);
	_cleanup_free_ char *text = d.text;

	if (rc == -EINTR || rc == -ETIMEDOUT) {
		fprintf(stderr, "clusterctl: host %s is not proven dead yet; it goes on being fenced; see 'clusterctl fence history %s'\n", inv->args[0],
			inv->args[0]);
		return rc == -EINTR ? 130 : STATUS(TIMEOUT);
	}
	if (rc < 0)
		return err_prefix(&inv->err, rc, "host %s goes on being fenced, unwatched", inv->args[0]);
	if (!d.dead)
		return err_set_status(&inv->err, EREMOTEIO, STATUS(FAILED), "host %s was not fenced: %s; see 'clusterctl fence history %s'", inv->args[0],
				      text ? text : "nothing is known of it", inv->args[0]);
	if (inv->format == OUTPUT_TABLE || inv->format == OUTPUT_NAME)
		puts(inv->format == OUTPUT_NAME ? inv->args[0] : text);
	else
		return output_object(inv->format, json_pack("{s:s, s:b, s:s}", "name", inv->args[0], "dead", 1, "text", text), &inv->err);
	return 0;
}

/* *ret_after_id: the newest event before the command. */
static int check_run(struct invocation *inv, uint64_t *ret_after_id)
{
	Gantry__CtlModel *m = NULL;
	const Gantry__Host *h;
	int rc = cmd_model(inv, true, &m);

	if (rc < 0)
		return rc;
	rc = cmd_host_named(inv, m, &h);
	if (rc == 0 && strcmp(m->host, h->name) == 0 && !inv->no_wait)
		rc = err_set_status(&inv->err, EINVAL, STATUS(CONSTRAINT),
				    "host '%s' is the one that is asked, and cannot tell of its own death: ask another host (clusterctl --host ADDRESS "
				    "fence run %s --yes), or do not wait (--no-wait)", h->name, h->name);
	if (rc == 0 && m->model->n_events)
		*ret_after_id = m->model->events[m->model->n_events - 1]->id;
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

int cmd_fence_run(struct invocation *inv)
{
	const char *reason = invocation_option(inv, "reason");
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdFenceRun body = GANTRY__CMD_FENCE_RUN__INIT;
	uint64_t after_id = 0;
	struct ctl_client *c;
	int rc = 0;

	if (invocation_option(inv, "yes") == NULL)
		rc = err_set_status(&inv->err, EPERM, STATUS(NEEDS_FORCE),
				    "this switches host '%s' off at once, and its domains start elsewhere from their disks; if that is what you want, say --yes",
				    inv->args[0]);
	if (rc == 0)
		rc = check_run(inv, &after_id);
	if (rc == 0)
		rc = invocation_client(inv, &c);
	if (rc < 0)
		return rc;
	body.host = (char *)inv->args[0];
	if (reason != NULL)
		body.reason = (char *)reason;
	command.body_case = GANTRY__COMMAND__BODY_FENCE_RUN;
	command.fence_run = &body;
	if (inv->no_wait) {
		_cleanup_free_ char *done = str_printf("host %s is being fenced", inv->args[0]);
		return job_run(inv, &command, done);
	}
	rc = ctl_propose(c, &command, NULL, &inv->err);
	return rc < 0 ? rc : wait_for_death(inv, after_id);
}

/* ---- history */

static bool on_history_event(void *data, const Gantry__Event *e)
{
	struct invocation *inv = data;
	bool wanted = strncmp(e->kind, "fence-", 6) == 0 || strncmp(e->kind, "host-", 5) == 0;

	if (wanted && (inv->n_args == 0 || (strncmp(e->subject, "host ", 5) == 0 && strcmp(e->subject + 5, inv->args[0]) == 0)))
		cmd_print_event(inv, e);
	return true;
}

int cmd_fence_history(struct invocation *inv)
{
	uint64_t after_id = 0;
	int rc = cmd_watch_events(inv, false, ctl_now_ms() + CTL_ANSWER_TIMEOUT_MS, &after_id, on_history_event, inv);

	return rc == -EINTR ? 130 : rc;
}

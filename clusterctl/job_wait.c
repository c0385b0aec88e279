#include "clusterctl/job_wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clusterctl/ctl_client.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"
#include "proto/pbjson.h"

#define STAGES 6

struct progress {
	bool tty, line_open;
	Gantry__MigrationStage stage;
	uint32_t round;
	char *reason; /* of waiting, as last told */
};

const char *job_stage_word(Gantry__MigrationStage stage)
{
	static const char *const words[] = {"not begun", "pre-migration", "reservation", "pre-copy", "stop-and-copy",
					    "commitment", "activation"};

	return (size_t)stage < ARRAY_SIZE(words) ? words[stage] : "unknown";
}

static void line_end(struct progress *p)
{
	if (p->line_open)
		fputc('\n', stderr);
	p->line_open = false;
}

static void show_migration(struct progress *p, const Gantry__CtlJob *now)
{
	const Gantry__MigrationProgress *m = now->progress;
	Gantry__MigrationStage stage = now->job->stage;
	struct buf line = {0};

	if (m != NULL && m->stage > stage)
		stage = m->stage;
	uint32_t round = m ? m->round : 0;
	if (!p->tty && stage == p->stage && round == p->round)
		return;
	p->stage = stage;
	p->round = round;
	buf_printf(&line, "stage %d/%d %s", (int)stage, STAGES, job_stage_word(stage));
	if (m != NULL && m->total_bytes != 0) {
		_cleanup_free_ char *remaining = units_format_bytes(m->remaining_bytes);
		_cleanup_free_ char *dirty = units_format_bytes(m->dirty_rate_bytes_per_s);
		_cleanup_free_ char *speed = units_format_bytes(m->throughput_bytes_per_s);
		_cleanup_free_ char *elapsed = units_format_ms(m->elapsed_ms);
		buf_printf(&line, ", round %u, %s remaining, dirtied %s/s, sent %s/s, %s", m->round, remaining, dirty, speed, elapsed);
	}
	fprintf(stderr, p->tty ? "\r%s\033[K" : "%s\n", buf_str(&line));
	p->line_open = p->tty;
	buf_free(&line);
}

/* A domain that has to wait says why. */
static void show_waiting(struct progress *p, const Gantry__CtlJob *now)
{
	const char *reason = "";

	if (now->domain != NULL && now->domain->state == GANTRY__DOMAIN_STATE__DOMAIN_STATE_WAITING)
		reason = now->domain->reason;
	if (p->reason != NULL && strcmp(p->reason, reason) == 0)
		return;
	free(p->reason);
	p->reason = str_dup(reason);
	if (reason[0] != '\0')
		fprintf(stderr, "%s: %s\n", now->domain->spec->name, reason);
}

static void show(struct progress *p, const Gantry__CtlJob *now)
{
	if (now->job->kind == GANTRY__JOB_KIND__JOB_KIND_MIGRATE)
		show_migration(p, now);
	else
		show_waiting(p, now);
	fflush(stderr);
}

/* One watch, until the task ends or the connection does. */
static int watch(struct ctl_client *c, uint64_t job_id, uint64_t deadline_ms, struct progress *p, Gantry__CtlJob **ret,
		 bool *ret_heard, struct err *err)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT, *message;
	Gantry__CtlWatchJob body = GANTRY__CTL_WATCH_JOB__INIT;
	uint64_t id;
	int rc = ctl_connect(c, err);

	body.job_id = job_id;
	request.body_case = GANTRY__CTL_MESSAGE__BODY_WATCH_JOB;
	request.watch_job = &body;
	if (rc == 0)
		rc = ctl_send(c, &request, &id, err);
	while (rc == 0) {
		rc = ctl_receive(c, id, deadline_ms, &message, err);
		if (rc < 0)
			break;
		*ret_heard = true;
		if (message->body_case == GANTRY__CTL_MESSAGE__BODY_JOB && message->job->job != NULL) {
			show(p, message->job);
			if (message->job->ended) {
				*ret = message->job;
				message->job = NULL;
				message->body_case = GANTRY__CTL_MESSAGE__BODY__NOT_SET;
				gantry__ctl_message__free_unpacked(message, NULL);
				return 0;
			}
		}
		gantry__ctl_message__free_unpacked(message, NULL);
	}
	return rc;
}

/* Watches again when clusterd goes away and comes back. */
static int watch_on(struct invocation *inv, struct ctl_client *c, uint64_t job_id, struct progress *p, Gantry__CtlJob **ret)
{
	uint64_t deadline = inv->timeout_s ? ctl_now_ms() + inv->timeout_s * 1000ull : 0, heard_at = ctl_now_ms();

	for (;;) {
		bool heard = false;
		int rc = watch(c, job_id, deadline, p, ret, &heard, &inv->err);
		if (rc == 0 || rc == -EINTR || rc == -ETIMEDOUT || rc == -EREMOTEIO)
			return rc;
		if (heard)
			heard_at = ctl_now_ms();
		if (ctl_now_ms() - heard_at >= CTL_RECONNECT_MS)
			return rc;
		rc = ctl_pause(c, CTL_RETRY_PAUSE_MS, &inv->err);
		if (rc < 0)
			return rc;
	}
}

static int fail_ended(struct invocation *inv, const Gantry__Job *job)
{
	const char *what = job->domain_name[0] ? job->domain_name : job->volume;
	bool cancelled = job->state == GANTRY__JOB_STATE__JOB_STATE_CANCELLED;

	return err_set_status(&inv->err, EREMOTEIO, GANTRY__STATUS__STATUS_FAILED, "%s: task %" PRIu64 " (%s) %s%s%s", what, job->id,
			      pbjson_enum_word(&gantry__job_kind__descriptor, job->kind), cancelled ? "was cancelled" : "failed",
			      job->reason[0] ? ": " : "", job->reason);
}

int job_wait(struct invocation *inv, uint64_t job_id, Gantry__CtlJob **ret)
{
	struct progress p = {.tty = isatty(STDERR_FILENO) == 1};
	Gantry__CtlJob *end = NULL;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	if (rc == 0)
		rc = watch_on(inv, c, job_id, &p, &end);
	line_end(&p);
	free(p.reason);
	if (rc == -EINTR || rc == -ETIMEDOUT) {
		fprintf(stderr, "clusterctl: still goes on as task %" PRIu64 "; clusterctl task watch %" PRIu64 "\n", job_id, job_id);
		return rc == -EINTR ? 130 : GANTRY__STATUS__STATUS_TIMEOUT;
	}
	if (rc < 0)
		return rc == -EREMOTEIO ? rc : err_prefix(&inv->err, rc, "task %" PRIu64 " goes on unwatched", job_id);
	if (end->job->state != GANTRY__JOB_STATE__JOB_STATE_DONE) {
		rc = fail_ended(inv, end->job);
		gantry__ctl_job__free_unpacked(end, NULL);
		return rc;
	}
	*ret = end;
	return 0;
}

static char *migration_summary(const Gantry__Job *job)
{
	struct buf text = {0};

	buf_printf(&text, "%s moved from %s to %s", job->domain_name, job->source, job->destination);
	if (job->figures != NULL) {
		const Gantry__MigrationFigures *f = job->figures;
		_cleanup_free_ char *total = units_format_ms(f->total_ms);
		_cleanup_free_ char *sent = units_format_bytes(f->transferred_bytes);
		_cleanup_free_ char *speed = units_format_bytes(f->throughput_bytes_per_s);
		buf_printf(&text, " in %s, downtime %" PRIu64 " ms, %u round%s, %s sent at %s/s", total, f->downtime_ms, f->rounds,
			   f->rounds == 1 ? "" : "s", sent, speed);
	}
	char *summary = str_dup(buf_str(&text));
	buf_free(&text);
	return summary;
}

char *job_summary(const Gantry__CtlJob *end)
{
	const Gantry__Job *job = end->job;
	const Gantry__Domain *d = end->domain;

	if (job->kind == GANTRY__JOB_KIND__JOB_KIND_MIGRATE)
		return migration_summary(job);
	if (d != NULL && d->host[0] != '\0')
		return str_printf("%s (ID %u) is %s on %s", d->spec->name, d->id,
				  pbjson_enum_word(&gantry__domain_state__descriptor, d->state), d->host);
	if (d != NULL)
		return str_printf("%s is %s", d->spec->name, pbjson_enum_word(&gantry__domain_state__descriptor, d->state));
	return str_printf("task %" PRIu64 " is done%s%s", job->id, job->reason[0] ? ": " : "", job->reason);
}

static int print_end(struct invocation *inv, const Gantry__CtlJob *end, const char *done)
{
	if (inv->format == OUTPUT_NAME) {
		puts(end->job->domain_name[0] ? end->job->domain_name : end->job->volume);
	} else if (inv->format != OUTPUT_TABLE) {
		return output_object(inv->format, pbjson_from_message(&end->base, true), &inv->err);
	} else {
		_cleanup_free_ char *summary = done ? str_dup(done) : job_summary(end);
		puts(summary);
	}
	return 0;
}

/* What there is to say when no task has to be waited for. */
static int print_result(struct invocation *inv, const Gantry__CommandResult *result, const char *done)
{
	if (inv->format == OUTPUT_JSON || inv->format == OUTPUT_YAML)
		return output_object(inv->format, pbjson_from_message(&result->base, true), &inv->err);
	if (result->job_id != 0)
		printf(inv->format == OUTPUT_NAME ? "%" PRIu64 "\n" : "goes on as task %" PRIu64 "\n", result->job_id);
	else if (inv->format == OUTPUT_TABLE)
		puts(done ? done : result->text[0] ? result->text : "done");
	return 0;
}

int job_run(struct invocation *inv, Gantry__Command *command, const char *done)
{
	Gantry__CommandResult *result = NULL;
	Gantry__CtlJob *end = NULL;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	if (rc == 0)
		rc = ctl_propose(c, command, &result, &inv->err);
	if (rc < 0)
		return rc;
	if (result->job_id != 0 && !inv->no_wait) {
		rc = job_wait(inv, result->job_id, &end);
		if (rc == 0)
			rc = print_end(inv, end, done);
		if (end != NULL)
			gantry__ctl_job__free_unpacked(end, NULL);
	} else {
		rc = print_result(inv, result, done);
	}
	gantry__command_result__free_unpacked(result, NULL);
	return rc;
}

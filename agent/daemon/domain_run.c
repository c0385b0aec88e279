#include "agent/daemon/domain_run.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "agent/core/migration_rule.h"
#include "agent/daemon/console.h"
#include "agent/daemon/domain_adopt.h"
#include "agent/daemon/domain_end.h"
#include "agent/daemon/domain_io.h"
#include "agent/daemon/domain_note.h"
#include "agent/daemon/domain_ready.h"
#include "agent/daemon/domain_start.h"
#include "agent/daemon/guest_agent.h"
#include "agent/daemon/migration_host.h"
#include "hypervisor/qmp.h"
#include "lib/buf.h"
#include "lib/fault.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#define POWERDOWN_EVERY_MS 10000
#define CONT_EVERY_MS 1000
#define STATUS_EVERY_MS 5000
#define LEASE_AGAIN_MS 2000
#define ACTIVATE_AGAIN_MS 200
#define ACTIVATE_RETRY_MS 30000
#define SETTLE_AGAIN_MS 500

static bool domain_run__goal_paused(const struct domain *d)
{
	const Gantry__DomainGoal *goal = agent_goal(d->agent, d->uuid);

	return goal != NULL && goal->goal == GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_PAUSED;
}

int domain_run_qmp(struct domain *d, const char *command, json_t *args, qmp_reply_cb cb)
{
	struct qmp *qmp = d->qemu != NULL && !d->qemu_dead ? qemu_process_qmp(d->qemu) : NULL;
	int rc;

	if (qmp == NULL) {
		json_decref(args);
		return -ENOTCONN;
	}
	d->pending++;
	rc = qmp_execute(qmp, command, args, cb, d);
	if (rc < 0)
		d->pending--;
	return rc;
}

/* True if the answer still matters: the domain was not ended meanwhile. */
static bool domain_run__answered(struct domain *d)
{
	d->pending--;
	agent_wake(d->agent);
	return d->actual != ACTUAL_STOPPING && d->qemu != NULL && !d->qemu_dead;
}

static void domain_run__note(struct domain *d, enum note_stage stage)
{
	struct err err;

	if (domain_note_write(d, stage, &err) < 0)
		log_error("domain %s: its note could not be written: %s", d->name, err.text);
}

void domain_run_take_policy(struct domain *d, const Gantry__DomainGoal *goal)
{
	bool left = goal->policy != NULL && goal->policy->isolation == GANTRY__ISOLATION__ISOLATION_LEAVE;

	if (d->ha == goal->ha && d->left == left)
		return;
	d->ha = goal->ha;
	d->left = left;
	if (d->actual == ACTUAL_RUNNING || d->actual == ACTUAL_PAUSED)
		domain_run__note(d, NOTE_RUNNING);
}

static uint64_t domain_run__wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- VNC ---- */

static void domain_run__vnc_is(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;
	const char *host = rc == 0 ? json_string_value(json_object_get(ret, "host")) : NULL;
	const char *service = rc == 0 ? json_string_value(json_object_get(ret, "service")) : NULL;

	d->pending--;
	if (host != NULL && service != NULL) {
		_cleanup_free_ char *text = str_printf("%s:%s", host, service);
		agent_set_text(&d->vnc, text);
	}
}

static void domain_run__ask_vnc(struct domain *d)
{
	for (size_t i = 0; i < d->spec->n_displays; i++)
		if (d->spec->displays[i]->vnc) {
			domain_run_qmp(d, "query-vnc", NULL, domain_run__vnc_is);
			return;
		}
}

static void domain_run__password_set(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;

	d->pending--;
	if (rc < 0)
		log_warning("domain %s: the VNC password was not set, nobody can log in: %s", d->name, err->text);
}

static void domain_run__set_passwords(struct domain *d)
{
	for (size_t i = 0; i < d->spec->n_displays; i++) {
		const Gantry__Display *display = d->spec->displays[i];
		if (display->vnc && display->vnc_password[0] != '\0')
			domain_run_qmp(d, "set_password",
					json_pack("{s:s, s:s}", "protocol", "vnc", "password", display->vnc_password),
					domain_run__password_set);
	}
}

/* ---- run and pause ---- */

static void domain_run__is_running(struct domain *d)
{
	d->actual = ACTUAL_RUNNING;
	d->activating = false;
	agent_set_text(&d->trouble, NULL);
	if (d->running_since_ms == 0)
		d->running_since_ms = domain_run__wall_ms();
	d->retry_until_ms = d->tries = d->not_before_ms = 0;
}

static void domain_run__first_done(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;

	if (!domain_run__answered(d))
		return;
	if (rc < 0) {
		domain_end_begin(d, END_FAILED, err->text);
		return;
	}
	domain_run__is_running(d);
	domain_run__note(d, NOTE_RUNNING);
	domain_run__ask_vnc(d);
}

void domain_run_first(struct domain *d)
{
	console_attach(d, false);
	domain_run__set_passwords(d);
	if (domain_run__goal_paused(d)) {
		domain_run__is_running(d);
		d->actual = ACTUAL_PAUSED;
		domain_run__note(d, NOTE_RUNNING);
		domain_run__ask_vnc(d);
		agent_wake(d->agent);
	} else if (domain_run_qmp(d, "cont", NULL, domain_run__first_done) < 0) {
		domain_end_begin(d, END_FAILED, "QEMU cannot be told to run");
	}
}

static void domain_run__paused(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;

	if (!domain_run__answered(d))
		return;
	d->actual = rc == 0 ? ACTUAL_PAUSED : ACTUAL_RUNNING;
	if (rc < 0) {
		agent_set_text(&d->trouble, err->text);
		d->not_before_ms = agent_now_ms(d->agent) + CONT_EVERY_MS;
	}
}

void domain_run_pause(struct domain *d)
{
	if (d->not_before_ms > agent_now_ms(d->agent))
		return;
	if (domain_run_qmp(d, "stop", NULL, domain_run__paused) == 0)
		d->actual = ACTUAL_STARTING;
}

static void domain_run__unpaused(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;

	if (!domain_run__answered(d))
		return;
	if (rc == 0) {
		domain_run__is_running(d);
	} else {
		d->actual = ACTUAL_PAUSED;
		agent_set_text(&d->trouble, err->text);
	}
}

void domain_run_unpause(struct domain *d)
{
	uint64_t now = agent_now_ms(d->agent);

	/* A guest that has just ended its work is stopped by QEMU for a moment before the process ends. */
	if (d->guest_shutdown || d->guest_panicked || (d->cont_at_ms != 0 && now - d->cont_at_ms < CONT_EVERY_MS) ||
	    !domain_io_may_go_on(d))
		return;
	d->cont_at_ms = now;
	if (domain_run_qmp(d, "cont", NULL, domain_run__unpaused) < 0)
		return;
	d->actual = ACTUAL_STARTING;
	if (d->io_error != NULL)
		domain_io_goes_on(d);
}

static void domain_run__minor_done(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;

	d->pending--;
	if (rc < 0)
		log_warning("domain %s: %s", d->name, err->text);
}

void domain_run_shutdown(struct domain *d)
{
	uint64_t now = agent_now_ms(d->agent);

	d->stop_asked = true;
	if (d->powerdown_at_ms != 0 && now - d->powerdown_at_ms < POWERDOWN_EVERY_MS)
		return;
	d->powerdown_at_ms = now;
	domain_run_qmp(d, "system_powerdown", NULL, domain_run__minor_done);
}

/* ---- the destination after COMMIT ---- */

static void domain_run__activation_failed(struct domain *d, int rc, const struct err *err)
{
	uint64_t now = agent_now_ms(d->agent);

	if (d->actual == ACTUAL_STOPPING)
		return;
	if (!domain_start_may_pass(rc) || now >= d->retry_until_ms) {
		domain_end_begin(d, END_CRASHED, err->text);
		return;
	}
	agent_set_text(&d->trouble, err->text);
	d->not_before_ms = now + ACTIVATE_AGAIN_MS;
	d->actual = ACTUAL_COMPLETE;
}

static void domain_run__activated(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;

	if (!domain_run__answered(d))
		return;
	if (rc < 0) {
		domain_end_begin(d, END_CRASHED, err->text);
		return;
	}
	domain_run__is_running(d);
	migration_host_activated(d);
	domain_run__note(d, NOTE_RUNNING);
	/* The switches on the way learn the guest's new place; QEMU's own rounds began before the tap was the guest's.
	 */
	domain_run_qmp(d, "announce-self",
			json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 5, "step", 100),
			domain_run__minor_done);
	domain_run__ask_vnc(d);
	console_attach(d, false);
}

static void domain_run__activate_leased(void *data, int rc, const struct err *err)
{
	struct domain *d = data;

	d->pending--;
	domain_start_leases_done(d, rc);
	agent_wake(d->agent);
	if (d->actual == ACTUAL_STOPPING)
		return;
	if (rc < 0) {
		domain_run__activation_failed(d, rc, err);
		return;
	}
	domain_run__set_passwords(d);
	if (domain_run__goal_paused(d)) {
		domain_run__is_running(d);
		d->actual = ACTUAL_PAUSED;
		domain_run__note(d, NOTE_RUNNING);
		migration_host_activated(d);
		console_attach(d, false);
	} else if (domain_run_qmp(d, "cont", NULL, domain_run__activated) < 0) {
		domain_end_begin(d, END_CRASHED, "QEMU cannot be told to go on after the commit");
	}
}

void domain_run_activate(struct domain *d)
{
	uint64_t now = agent_now_ms(d->agent);
	struct err err;
	int rc;

	if (d->not_before_ms > now)
		return;
	if (!d->activating)
		d->retry_until_ms = now + ACTIVATE_RETRY_MS;
	fault_point("migrate.destination.activation");
	d->activating = true;
	d->actual = ACTUAL_STARTING;
	/* Waits for a session after a restart of the agent; the QEMU itself waits paused. */
	if (qemu_process_qmp(d->qemu) == NULL)
		rc = err_set(&err, EAGAIN, "domain '%s': QEMU does not answer yet", d->name);
	else
		rc = domain_start_leases(d, domain_run__activate_leased, &err);
	if (rc < 0)
		domain_run__activation_failed(d, rc, &err);
}

/* ---- the source after ABORT ---- */

static void domain_run__settle_later(struct domain *d, const struct err *err)
{
	agent_set_text(&d->trouble, err->text);
	d->not_before_ms = agent_now_ms(d->agent) + SETTLE_AGAIN_MS;
	d->actual = ACTUAL_OUTGOING_HELD;
	agent_wake(d->agent);
}

/* The leases are ours: the guest may write. */
static void domain_run__release_guest(struct domain *d)
{
	struct err err;
	int rc;

	d->settling = true;
	rc = migration_host_abort_source(d, &err);
	if (rc < 0)
		domain_run_settled(d, rc, &err);
}

static void domain_run__leases_back(void *data, int rc, const struct err *err)
{
	struct domain *d = data;

	d->pending--;
	if (d->leases_asked)
		domain_start_leases_done(d, rc);
	agent_wake(d->agent);
	if (d->actual == ACTUAL_STOPPING)
		return;
	if (rc == 0) {
		d->leases_handed = false;
		domain_run__release_guest(d);
	} else if (domain_start_may_pass(rc)) {
		domain_run__settle_later(d, err);
	} else {
		domain_end_begin(d, END_CRASHED, err->text);
	}
}

void domain_run_settle_abort(struct domain *d)
{
	struct err err;
	int rc;

	if (d->not_before_ms > agent_now_ms(d->agent) || d->pending > 0)
		return;
	d->actual = ACTUAL_STARTING;
	if (d->leases != NULL && !d->leases_handed) {
		domain_run__release_guest(d);
		return;
	}
	if (d->leases == NULL) {
		rc = domain_start_leases(d, domain_run__leases_back, &err);
	} else {
		d->pending++;
		rc = storage_leases_take_back(d->leases, domain_run__leases_back, d);
		if (rc < 0) {
			d->pending--;
			err_set(&err, -rc, "domain '%s': its leases cannot be taken back: %s", d->name, strerror(-rc));
		}
	}
	if (rc < 0)
		domain_run__settle_later(d, &err);
}

static void domain_run__status_is(void *data, int rc, json_t *ret, const struct err *err);

void domain_run_settled(struct domain *d, int rc, const struct err *err)
{
	_cleanup_free_ char *why = NULL;

	d->settling = false;
	agent_wake(d->agent);
	if (d->actual == ACTUAL_STOPPING || d->qemu == NULL)
		return;
	if (rc < 0) {
		why = str_printf("the aborted migration could not be undone: %s", err->text);
		domain_end_begin(d, END_CRASHED, why);
		return;
	}
	d->job_id = 0;
	agent_set_text(&d->trouble, NULL);
	domain_run__note(d, NOTE_RUNNING);
	d->actual = ACTUAL_PAUSED;
	domain_run_qmp(d, "query-status", NULL, domain_run__status_is);
	log_notice("domain %s: the migration was aborted, the guest stays here", d->name);
}

void domain_run_held(struct domain *d)
{
	if (d->actual == ACTUAL_OUTGOING)
		d->actual = ACTUAL_OUTGOING_HELD;
}

/* ---- what QEMU says by itself ---- */

static void domain_run__status_is(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;
	const char *status = rc == 0 ? json_string_value(json_object_get(ret, "status")) : NULL;

	if (!domain_run__answered(d) || status == NULL)
		return;
	if (d->actual == ACTUAL_RUNNING || d->actual == ACTUAL_PAUSED) {
		bool running = strcmp(status, "running") == 0;
		d->actual = running ? ACTUAL_RUNNING : ACTUAL_PAUSED;
		if (running)
			agent_set_text(&d->trouble, NULL);
		else if (strcmp(status, "io-error") == 0)
			domain_io_error_found(d);
		else if (strcmp(status, "watchdog") == 0)
			domain_end_hung(d, DOMAIN_END_WATCHDOG_FIRED);
	}
}

static void domain_run__on_shutdown(struct domain *d, json_t *event)
{
	const char *reason = json_string_value(json_object_get(event, "reason"));

	if (reason == NULL || !json_is_true(json_object_get(event, "guest")))
		return;
	if (strcmp(reason, "guest-reset") == 0)
		d->guest_reboot = true;
	else if (strcmp(reason, "guest-panic") == 0)
		d->guest_panicked = true;
	else
		d->guest_shutdown = true;
}

static void domain_run__restop(void *data, int rc, json_t *ret, const struct err *err)
{
	domain_run__answered(data);
}

static void domain_run__on_resume(struct domain *d)
{
	/* Before the answer to `cont`: the engine tells of it now, and a guest that runs must not be reported as one that starts. */
	if (d->activating && d->running_since_ms == 0)
		d->running_since_ms = domain_run__wall_ms();
	switch (migration_rule_resume(&(struct resume_facts){d->actual, d->settling, d->leases_handed, d->adopted})) {
	case RESUME_IGNORED:
		return;
	case RESUME_RUNS:
		d->actual = ACTUAL_RUNNING;
		return;
	case RESUME_OUTGOING:
		d->actual = ACTUAL_OUTGOING;
		return;
	case RESUME_STOP:
		/* QEMU gave the migration up and went on by itself. */
		log_error("domain %s: QEMU resumed an undecided source: stopped again", d->name);
		domain_run_qmp(d, "stop", NULL, domain_run__restop);
		return;
	}
}

static void domain_run__on_event(void *data, struct qemu_process *qp, const char *event, json_t *event_data)
{
	struct domain *d = data;

	if (strcmp(event, "SHUTDOWN") == 0)
		domain_run__on_shutdown(d, event_data);
	else if (strcmp(event, "GUEST_PANICKED") == 0)
		d->guest_panicked = true;
	else if (strcmp(event, "STOP") == 0 && d->actual == ACTUAL_RUNNING)
		d->actual = ACTUAL_PAUSED;
	else if (strcmp(event, "STOP") == 0)
		domain_run_held(d);
	else if (strcmp(event, "RESUME") == 0)
		domain_run__on_resume(d);
	else if (strcmp(event, "BLOCK_IO_ERROR") == 0)
		domain_io_error_event(d, event_data);
	else if (strcmp(event, "WATCHDOG") == 0)
		domain_end_hung(d, DOMAIN_END_WATCHDOG_FIRED);
	else if (strcmp(event, "RESET") == 0)
		guest_watch_reset(&d->guest_watch);
	else if (strcmp(event, "VSERPORT_CHANGE") == 0)
		guest_agent_port_event(d, event_data);
	migration_host_qemu_event(d, event, event_data);
	agent_wake(d->agent);
}

static void domain_run__on_ready(void *data, struct qemu_process *qp)
{
	struct domain *d = data;
	bool first = !d->qmp_ready;

	d->qmp_ready = true;
	agent_set_text(&d->trouble, NULL);
	if (first && d->adopted)
		domain_adopt_ready(d);
	else if (first)
		domain_start_ready(d);
	else
		d->status_at_ms = 0;
	if (!first)
		guest_agent_ask_port(d);
	agent_wake(d->agent);
}

static void domain_run__on_exit(void *data, struct qemu_process *qp, int exit_status, const char *log_tail)
{
	domain_end_exited(data, exit_status, log_tail);
}

static void domain_run__on_error(void *data, struct qemu_process *qp, const struct err *err)
{
	struct domain *d = data;

	/* A guest that runs is not ended because QMP is silent: the last bytes of a migration may hold it up for long.
	 */
	if (d->qmp_ready || d->adopted) {
		log_warning("domain %s: QEMU does not answer: %s", d->name, err->text);
		agent_set_text(&d->trouble, err->text);
		agent_wake(d->agent);
	} else {
		domain_start_never_ready(d, err);
	}
}

const struct qemu_process_callbacks domain_run_callbacks = {
    .on_ready = domain_run__on_ready,
    .on_event = domain_run__on_event,
    .on_exit = domain_run__on_exit,
    .on_error = domain_run__on_error,
};

static void domain_run__reowned(void *data, int rc, const struct err *err)
{
	struct domain *d = data;

	d->pending--;
	domain_start_leases_done(d, rc);
	agent_wake(d->agent);
	if (rc == 0 || d->actual == ACTUAL_STOPPING)
		return;
	if (rc == -ESTALE) {
		domain_end_begin(d, END_CRASHED, err->text);
		return;
	}
	agent_set_text(&d->trouble, err->text);
	d->lease_retry_ms = agent_now_ms(d->agent) + LEASE_AGAIN_MS;
}

void domain_run_tend(struct domain *d)
{
	const Gantry__DomainGoal *goal = agent_goal(d->agent, d->uuid);
	uint64_t now = agent_now_ms(d->agent);
	struct err err;
	int rc;

	if (d->actual == ACTUAL_RUNNING || d->actual == ACTUAL_PAUSED || d->actual == ACTUAL_OUTGOING ||
	    d->actual == ACTUAL_OUTGOING_HELD)
		domain_ready_tend(d, goal);
	if (d->actual != ACTUAL_RUNNING && d->actual != ACTUAL_PAUSED)
		return;
	domain_io_tend(d);
	if (d->leases == NULL && !d->leases_asked && d->adopted && goal != NULL && goal->generation == d->generation &&
	    now >= d->lease_retry_ms) {
		rc = domain_start_leases(d, domain_run__reowned, &err);
		if (rc < 0) {
			agent_set_text(&d->trouble, err.text);
			d->lease_retry_ms = now + LEASE_AGAIN_MS;
		}
	}
	if (now - d->status_at_ms >= STATUS_EVERY_MS && d->pending == 0) {
		d->status_at_ms = now;
		domain_run_qmp(d, "query-status", NULL, domain_run__status_is);
	}
}

#include "agent/daemon/domain_end.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "agent/daemon/console.h"
#include "agent/daemon/domain_io.h"
#include "agent/daemon/domain_note.h"
#include "agent/daemon/domain_ready.h"
#include "agent/daemon/domain_start.h"
#include "agent/daemon/ended_note.h"
#include "agent/daemon/migration_host.h"
#include "hypervisor/qemu_args.h"
#include "hypervisor/qmp.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#define DESTROY_QUIT_MS 1500 /* below SELFFENCE_KILL_TAKES_MS: a fence never waits longer for a QEMU that hangs */
_Static_assert(DESTROY_QUIT_MS < SELFFENCE_KILL_TAKES_MS, "a destroy under way must not outlast the self-fence");

void domain_end_record(struct domain *d, uint64_t generation, Gantry__DomainState state, const char *reason)
{
	struct err err;

	if (ended_note_write(d, generation, state, reason, &err) < 0) {
		/* Not on record is not reported: the domain is started here again, which is safe. */
		log_error("domain %s: its end cannot be noted, and so not be reported: %s", d->name, err.text);
		return;
	}
	d->ended_generation = generation;
	d->ended_state = state;
	d->ended_guest_shutdown = d->guest_shutdown;
	d->ended_guest_reboot = d->guest_reboot;
	d->ended_hung = d->hung;
	agent_set_text(&d->ended_reason, reason);
}

void domain_end_begin(struct domain *d, enum domain_end end, const char *reason)
{
	if (d->actual == ACTUAL_ABSENT)
		return;
	if (d->end == END_NONE) {
		d->end = end;
		agent_set_text(&d->end_reason, reason);
		log_notice("domain %s: generation %" PRIu64 " ends: %s", d->name, d->generation, reason);
	}
	if (d->actual == ACTUAL_ENDED)
		return;
	d->actual = ACTUAL_STOPPING;
	if (d->qemu != NULL && !d->qemu_dead)
		qemu_process_kill(d->qemu, SIGKILL);
	agent_wake(d->agent);
}

void domain_end_hung(struct domain *d, const char *reason)
{
	d->hung = d->end == END_NONE && d->actual != ACTUAL_ABSENT;
	domain_end_begin(d, END_CRASHED, reason);
}

void domain_end_quit(struct domain *d, const char *reason)
{
	struct qmp *qmp = d->qemu != NULL && !d->qemu_dead ? qemu_process_qmp(d->qemu) : NULL;

	if (d->pending > 0 || qmp == NULL || qmp_execute(qmp, "quit", NULL, NULL, NULL) < 0) {
		domain_end_begin(d, END_STOPPED, reason);
		return;
	}
	d->end = END_STOPPED;
	agent_set_text(&d->end_reason, reason);
	log_notice("domain %s: generation %" PRIu64 " ends: %s", d->name, d->generation, reason);
	d->actual = ACTUAL_STOPPING;
	d->quit_at_ms = agent_now_ms(d->agent) + DESTROY_QUIT_MS;
}

/* Nobody asked for this end: what was it? */
static void domain_end__classify(struct domain *d, int status, const char *log_tail)
{
	_cleanup_free_ char *how = NULL, *text = NULL;
	bool tail = log_tail != NULL && log_tail[0] != '\0';

	if (status >= 0 && WIFSIGNALED(status))
		how = str_printf("by signal %d", WTERMSIG(status));
	else if (status >= 0 && WIFEXITED(status))
		how = str_printf("with status %d", WEXITSTATUS(status));
	else
		how = str_dup("unseen");

	d->end = domain_fate_of_exit(&(struct domain_exit){
	    .actual = d->actual,
	    .copy = d->copy,
	    .activating = d->activating,
	    .has_run = d->running_since_ms != 0,
	    .guest_shutdown = d->guest_shutdown,
	    .guest_reboot = d->guest_reboot,
	    .guest_panicked = d->guest_panicked,
	});
	if (d->end == END_GONE) {
		text = str_printf("the incoming QEMU ended %s%s%s", how, tail ? ": " : "", tail ? log_tail : "");
	} else if (d->guest_panicked) {
		text = str_dup("the guest panicked");
	} else if (d->end == END_STOPPED) {
		text = str_dup(d->guest_reboot ? "the guest restarted and on_reboot ends it" : "the guest shut down");
	} else {
		text = str_printf("QEMU ended %s%s%s", how, tail ? "; its last words: " : " without a word in its log",
				  tail ? log_tail : "");
	}
	agent_set_text(&d->end_reason, text);
	log_notice("domain %s: generation %" PRIu64 " has ended: %s", d->name, d->generation, text);
}

void domain_end_exited(struct domain *d, int exit_status, const char *log_tail)
{
	d->qemu_dead = true;
	if (d->end == END_NONE && !domain_start_image_busy(d, log_tail))
		domain_end__classify(d, exit_status, log_tail);
	migration_host_qemu_died(d, d->end_reason);
	d->actual = ACTUAL_STOPPING;
	agent_wake(d->agent);
}

void domain_end_reap(struct domain *d)
{
	if (d->qemu != NULL && d->qemu_dead) {
		migration_host_drop_qemu(d);
		qemu_process_free(d->qemu);
		d->qemu = NULL;
		d->qemu_dead = d->qmp_ready = false;
		d->quit_at_ms = 0;
	}
	if (d->actual != ACTUAL_STOPPING)
		return;
	if (d->qemu == NULL && d->pending == 0)
		d->actual = ACTUAL_ENDED;
	else if (d->quit_at_ms != 0 && agent_now_ms(d->agent) >= d->quit_at_ms) {
		log_warning("domain %s: QEMU does not quit: killed", d->name);
		d->quit_at_ms = 0;
		qemu_process_kill(d->qemu, SIGKILL);
	}
}

static void domain_end__on_record(struct domain *d)
{
	static const Gantry__DomainState states[] = {
	    [END_STOPPED] = GANTRY__DOMAIN_STATE__DOMAIN_STATE_STOPPED,
	    [END_CRASHED] = GANTRY__DOMAIN_STATE__DOMAIN_STATE_CRASHED,
	    [END_FAILED] = GANTRY__DOMAIN_STATE__DOMAIN_STATE_FAILED,
	};

	if (d->end == END_STOPPED || d->end == END_CRASHED || d->end == END_FAILED) {
		domain_end_record(d, d->generation, states[d->end], d->end_reason);
	}
	if (d->end == END_RETRY)
		agent_set_text(&d->trouble, d->end_reason);
	else
		agent_set_text(&d->trouble, NULL);
	if (d->end != END_RETRY)
		d->retry_until_ms = d->tries = 0;
}

/* The last step: nothing of this QEMU is left. */
static void domain_end__finish(struct domain *d)
{
	struct err err;

	for (char **t = d->taps; t != NULL && *t != NULL; t++)
		if (tap_delete(*t, &err) < 0)
			log_warning("domain %s: %s", d->name, err.text);
	strv_free(d->taps);
	d->taps = NULL;
	domain_note_remove_dir(d->uuid);
	domain_end__on_record(d);
	d->end = END_NONE;
	agent_set_text(&d->end_reason, NULL);
	agent_set_text(&d->vnc, NULL);
	domain_io_forget(d);
	d->guest_shutdown = d->guest_reboot = d->guest_panicked = d->stop_asked = d->hung = false;
	d->adopted = d->cut_short = d->copy = d->activating = d->settling = d->leases_handed = false;
	d->powerdown_at_ms = d->quit_at_ms = d->cont_at_ms = d->lease_retry_ms = d->status_at_ms = 0;
	d->running_since_ms = d->job_id = 0;
	d->actual = ACTUAL_ABSENT;
	agent_wake(d->agent);
}

static void domain_end__released(void *data, int rc, const struct err *err)
{
	struct domain *d = data;

	if (rc < 0)
		log_warning("domain %s: its leases could not be released: %s", d->name, err != NULL ? err->text : "");
	d->pending--;
	domain_end__finish(d);
}

void domain_end_clean(struct domain *d)
{
	const Gantry__DomainGoal *goal = agent_goal(d->agent, d->uuid);
	_cleanup_free_ char *why = NULL;

	if (d->pending > 0)
		return;
	why = goal == NULL ? str_dup("the domain is no longer on this host")
			   : str_printf("the domain ended: %s", d->end_reason);
	console_detach(d, why);
	domain_ready_forget(d);
	if (d->leases == NULL) {
		domain_end__finish(d);
		return;
	}
	/* Not ours any more: the records belong to the next generation's story, not to us. */
	if (goal == NULL && d->agent->goals != NULL) {
		storage_leases_drop(d->leases);
		d->leases = NULL;
		domain_end__finish(d);
		return;
	}
	d->pending++;
	d->actual = ACTUAL_STOPPING;
	storage_leases_release(TAKE_PTR(d->leases), domain_end__released, d);
}

#include "agent/core/domain_fate.h"

#include <stddef.h>

enum domain_end domain_fate_of_exit(const struct domain_exit *x)
{
	bool waiting = x->actual == ACTUAL_STARTING || x->actual == ACTUAL_INCOMING || x->actual == ACTUAL_COMPLETE;

	if (x->copy && waiting && !x->activating)
		return END_GONE;
	if (x->guest_panicked)
		return END_CRASHED;
	if (x->guest_shutdown || x->guest_reboot)
		return END_STOPPED;
	return !x->has_run && !x->activating ? END_FAILED : END_CRASHED;
}

struct domain_kill domain_fate_of_kill(const struct reconcile_input *in)
{
	bool copy = in->actual == ACTUAL_INCOMING || in->actual == ACTUAL_COMPLETE;
	bool committed = in->migration != NULL && in->migration->incoming && in->migration->job->committed;

	if (reconcile_is_fenced(in))
		return (struct domain_kill){.end = END_CRASHED, .fenced = true};
	if (in->goal == NULL || in->actual_generation < in->goal->generation)
		return (struct domain_kill){.end = END_GONE};
	if (copy)
		return (struct domain_kill){.end = committed ? END_CRASHED : END_GONE};
	return (struct domain_kill){.end = END_STOPPED, .quit = true};
}

enum actual_state domain_fate_adopted(enum note_stage stage)
{
	switch (stage) {
	case NOTE_INCOMING:
		return ACTUAL_INCOMING;
	case NOTE_COMPLETE:
		return ACTUAL_COMPLETE;
	case NOTE_OUTGOING:
		return ACTUAL_OUTGOING_HELD;
	default:
		return ACTUAL_STARTING;
	}
}

enum domain_end domain_fate_unseen(enum note_stage stage)
{
	if (stage == NOTE_INCOMING || stage == NOTE_COMPLETE)
		return END_GONE;
	return stage == NOTE_STARTING ? END_RETRY : END_CRASHED;
}

bool domain_fate_image_lost(const struct reconcile_input *in, bool ended)
{
	return in->goal != NULL && in->migration != NULL && in->migration->incoming && in->migration->job->committed &&
	       in->actual == ACTUAL_ABSENT && !ended &&
	       in->goal->goal != GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_STOPPED;
}

#include "agent/core/domain_word.h"

#define STATE(x) GANTRY__DOMAIN_STATE__DOMAIN_STATE_##x

static Gantry__DomainState state_of(const struct domain_facts *f)
{
	bool stop = f->goal->goal == GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_STOPPED;

	switch (f->actual) {
	case ACTUAL_RUNNING:
	case ACTUAL_OUTGOING:
	case ACTUAL_OUTGOING_HELD:
		return stop ? STATE(STOPPING) : STATE(RUNNING);
	case ACTUAL_PAUSED:
		return stop ? STATE(STOPPING) : STATE(PAUSED);
	case ACTUAL_STOPPING:
	case ACTUAL_ENDED:
		return f->end == END_RETRY ? STATE(STARTING) : STATE(STOPPING);
	case ACTUAL_STARTING:
		/* Pausing and the like are such operations too: the guest has run. */
		return f->has_run ? STATE(RUNNING) : STATE(STARTING);
	case ACTUAL_ABSENT:
		return stop ? STATE(STOPPED) : STATE(STARTING);
	default:
		return STATE(STARTING);
	}
}

struct domain_word domain_word(const struct domain_facts *f)
{
	if (f->actual == ACTUAL_ABSENT && f->ended_generation == f->goal->generation)
		return (struct domain_word){.state = f->ended_state, .of = WORD_OF_END};
	/* An older QEMU goes first; a newer one makes this goal the past. */
	if (f->generation != f->goal->generation && f->actual != ACTUAL_ABSENT)
		return (struct domain_word){.state = STATE(STARTING), .of = WORD_OF_OLDER};
	return (struct domain_word){.state = state_of(f), .of = WORD_OF_NOW};
}

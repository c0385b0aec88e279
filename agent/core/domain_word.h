/* What is reported about a domain of the goals: pure. The cluster acts on it at once: "stopped", "crashed" and "failed" let it
 * start the domain elsewhere, so they are said only when nothing of the QEMU is left. */
#pragma once

#include "agent/core/domain_fate.h"

struct domain_facts {
	const Gantry__DomainGoal *goal; /* never NULL */
	enum actual_state actual;
	uint64_t generation;	   /* of the QEMU that is here or was last */
	enum domain_end end;	   /* of a QEMU that is ending */
	bool has_run;		   /* the guest of this QEMU */
	uint64_t ended_generation; /* 0: none */
	Gantry__DomainState ended_state;
};
enum domain_word_of {
	WORD_OF_NOW,   /* the reason is what troubles it now, if anything */
	WORD_OF_END,   /* of its recorded end: with its reason and what the guest did */
	WORD_OF_OLDER, /* of the goal, which waits for an older QEMU to end */
};
struct domain_word {
	Gantry__DomainState state;
	enum domain_word_of of;
};
/* The end of its very generation outweighs all but a QEMU that is here. */
struct domain_word domain_word(const struct domain_facts *f);

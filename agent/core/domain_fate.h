/* How the QEMU of a domain ends, or has ended, and what follows: pure. */
#pragma once

#include "agent/core/reconcile.h"

/* Why the QEMU that is here ended or is being ended: decides what is reported after the cleanup. */
enum domain_end {
	END_NONE,
	END_STOPPED,
	END_CRASHED,
	END_FAILED, /* it never ran */
	END_RETRY,  /* the start could not be done yet: tried again */
	END_GONE,   /* not ours (any more): nothing is reported */
};

/* How far a QEMU had come, as its note says: what a new agent knows of it. */
enum note_stage { NOTE_STARTING, NOTE_RUNNING, NOTE_INCOMING, NOTE_COMPLETE, NOTE_OUTGOING };

struct domain_exit {
	enum actual_state actual; /* before the exit */
	bool copy;		  /* it began as the copy of an incoming migration */
	bool activating;	  /* COMMIT was applied and is being carried out */
	bool has_run;
	bool guest_shutdown, guest_reboot, guest_panicked;
};
/* A process that ended although nobody ended it. Never END_NONE, END_RETRY. */
enum domain_end domain_fate_of_exit(const struct domain_exit *x);

struct domain_kill {
	enum domain_end end;
	bool quit; /* QEMU is asked first, so that it writes its caches out */
	bool fenced;
};
/* What OP_KILL means, from the same facts. */
struct domain_kill domain_fate_of_kill(const struct reconcile_input *in);

/* An agent that begins finds a note. The QEMU lives: where it stands until QMP says more. */
enum actual_state domain_fate_adopted(enum note_stage stage);
/* The QEMU is gone. */
enum domain_end domain_fate_unseen(enum note_stage stage);

/* The image that was committed to this host is no more: the cluster must hear it, it cannot be had again. `ended`: an end
 * of the goal's generation is recorded already. */
bool domain_fate_image_lost(const struct reconcile_input *in, bool ended);

/* What an agent shall do next about one domain: pure. goal + actual -> one operation. Called again after every
 * change; a lost message or a restart changes nothing. The whole policy is the table in reconcile.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/agent.pb-c.h"

enum actual_state {
	ACTUAL_ABSENT,	 /* no QEMU, nothing held */
	ACTUAL_STARTING, /* an operation is under way */
	ACTUAL_RUNNING,
	ACTUAL_PAUSED,
	ACTUAL_INCOMING,      /* QEMU of an incoming migration, not complete */
	ACTUAL_COMPLETE,      /* incoming, complete and verified, paused */
	ACTUAL_OUTGOING,      /* source, the guest still runs (or runs again) while it is being copied */
	ACTUAL_OUTGOING_HELD, /* source, paused at or after pre-switchover: only a decision releases it */
	ACTUAL_ENDED,	      /* QEMU has ended by itself; not yet reported or cleaned */
	ACTUAL_STOPPING,
};
enum reconcile_op {
	OP_NONE,
	OP_START,
	OP_PAUSE,
	OP_UNPAUSE,
	OP_SHUTDOWN,
	OP_KILL,
	OP_CLEAN,
	OP_ACTIVATE,	 /* COMMIT was applied and we are the new owner: leases, cont */
	OP_SETTLE_ABORT, /* ABORT was applied and we are the source: leases back, continue */
};
struct reconcile_input {
	const Gantry__DomainGoal *goal;		/* NULL: this host does not own it */
	const Gantry__MigrationGoal *migration; /* NULL: none with this domain on this host */
	enum actual_state actual;
	uint64_t actual_generation;  /* of the QEMU that is here */
	bool fenced;		     /* self-fence: no quorum for too long */
	bool guarded;		     /* a watchdog resets this host when it is fenced: no domain can be left to run */
	bool failed_this_generation; /* a start of this very generation failed or ended: wait for a new one */
};
/* The self-fence ends HA domains, but for those whose policy is to be left when the host is isolated. */
bool reconcile_is_fenced(const struct reconcile_input *in);
/* reason: for people and logs, static. */
struct reconcile_decision {
	enum reconcile_op op;
	const char *reason;
};
struct reconcile_decision reconcile_domain(const struct reconcile_input *in);
/* Words for logs: "running", "start". Static. */
const char *reconcile_state_word(enum actual_state state);
const char *reconcile_op_word(enum reconcile_op op);

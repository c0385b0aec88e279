/* What one side of a migration may do, by the goals alone: pure. Who runs the guest is decided by the log; a cable, a dead engine
 * or a QEMU that resumes by itself decides nothing. */
#pragma once

#include "agent/core/reconcile.h"

struct migration_facts {
	uint64_t job_id;
	bool incoming;
	uint64_t source_generation;
	bool domain_here; /* the copy or source of this very task is on this host */
	const Gantry__MigrationGoal *goal; /* of this domain, in the goals in force; NULL: none */
	const Gantry__DomainGoal *owner;   /* NULL: this host does not own the domain */
};
enum migration_decision {
	MIGRATION_UNDECIDED,
	/* Told to the engine elsewhere, after what must come first: by the destination when its guest runs, by the source when it
	 * has its leases back (OP_ACTIVATE, OP_SETTLE_ABORT). */
	MIGRATION_WAITS_FOR_DOMAIN,
	MIGRATION_COMMITTED,
	MIGRATION_ABORTED,
};
enum migration_decision migration_rule_decision(const struct migration_facts *f);

/* A destination that is at stage own, and a task that went further: the copy was received before this host or its agent was
 * restarted, and is gone. Its source may be complete and wait for the log's word: without this nobody would ever speak. */
bool migration_rule_copy_is_lost(const Gantry__Job *job, Gantry__MigrationStage own);

/* QEMU says that the guest goes on, and this agent did not ask for it. */
struct resume_facts {
	enum actual_state actual;
	bool settling;	    /* an abort is being carried out: it is right */
	bool leases_handed; /* to the destination, or perhaps so */
	bool adopted;	    /* what the old agent had handed over is not known */
};
enum resume_rule {
	RESUME_IGNORED,
	RESUME_RUNS,     /* a paused guest runs: noted */
	RESUME_OUTGOING, /* the migration failed before the leases were offered: no copy can be complete, none can be committed */
	RESUME_STOP,     /* only the log may let it go on: stopped again at once */
};
enum resume_rule migration_rule_resume(const struct resume_facts *f);

/* Planted faults: bugs that gantry-sim must find. MUTANT(x) is true only in the copies of the cores that are built for
 * gantry-sim-mutant (GANTRY_MUTANTS), and there only for the one bug that was chosen. In every shipped program it is the
 * constant false, and nothing of it is compiled in (tools/check-shipped looks). */
#pragma once

#include <stdbool.h>

/* name, the bug in words */
#define MUTANT_LIST(X) \
	X(ack_before_fsync, "an entry is acknowledged when it is in memory, not when it is durable") \
	X(commit_one_ack_short, "committed with one acknowledgement too few") \
	X(apply_before_commit, "an entry is applied when it is durable here, not when a quorum has it") \
	X(sync_one_vote_short, "the sync is decided with one statement too few") \
	X(establish_one_vote_short, "an epoch is led with one adoption too few") \
	X(shortest_log_wins, "the sync takes the least advanced log") \
	X(tail_not_cut, "the tail of a minority is not cut when the winner's log is taken over") \
	X(promise_not_raised, "the new epoch is not promised, so that it may be given twice") \
	X(snapshot_without_tail, "a snapshot is taken over without the entries behind it") \
	X(forgetful_speaks, "a host that lost its log makes statements for the sync") \
	X(alone_without_proof, "half of the voters go on alone without proof that the others are dead") \
	X(alone_after_restart, "a process that has just begun may seek to go on alone") \
	X(stale_epoch_obeyed, "what was said in an older epoch is taken into the log of the new one and carried out") \
	X(retry_applied_twice, "the request ids of clients are forgotten: a retry is applied again") \
	X(result_not_kept, "a refused request is not remembered: its retry may be carried out") \
	X(two_leaders_decide, "every member runs the manager and carries out what it decides, with or without a quorum") \
	X(restart_before_fencing, "a lost host's domains are placed elsewhere before it is proven dead") \
	X(failed_fence_counts, "a fence run that failed counts as a proof") \
	X(fence_storm, "a side without a quorum takes itself for the cluster and fences all the others") \
	X(fence_without_looking, "a host that came back is fenced all the same") \
	X(failover_forgets_domain, "one of a dead host's domains keeps its dead owner") \
	X(abort_after_commit, "ABORT is accepted after COMMIT") \
	X(generation_not_checked, "the agent takes a QEMU of any generation for the one of its goal, and starts one again that has ended") \
	X(old_goals_obeyed, "clusterd sends goals without a quorum, and the agent obeys those that are older than what it has") \
	X(source_goes_on, "the source takes its guest back without waiting for the decision") \
	X(destination_before_commit, "the destination continues the guest when its image is whole, before COMMIT") \
	X(source_survives_commit, "the source's copy is not killed after COMMIT") \
	X(abort_keeps_copy, "the destination's copy is not killed after ABORT") \
	X(selffence_late, "the self-fence ends after the deadline of a watchdog or of those who wait for it") \
	X(selffence_never, "a host without quorum never ends its domains") \
	X(time_proves_all, "a watchdog that must have fired proves a host dead that was here again meanwhile, or had its self-fence off, or was half of the voters") \
	X(disarmed_acts, "the leader fences and restarts while automatic action is off") \
	X(lease_without_proof, "clusterd moves a lost host's domains without a proof, and the lease lets it")

#define MUTANT_ENUM(name, words) MUTANT_##name,
enum mutant { MUTANT_LIST(MUTANT_ENUM) MUTANT_COUNT };
#undef MUTANT_ENUM

#ifdef GANTRY_MUTANTS
/* The chosen one, MUTANT_COUNT: none. */
extern enum mutant mutant_chosen;
#define MUTANT(name) (mutant_chosen == MUTANT_##name)
#else
#define MUTANT(name) false
#endif

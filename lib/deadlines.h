/* Times on which more than one program relies. Whoever changes one changes it for all. */
#pragma once

/* clusterd tells its agent this often whether it is in the quorum (agent/core/selffence.h derives from it). */
#define DEADLINE_HEARTBEAT_MS 500
/* A member that was not heard for so long does not count when the agent is told "quorate": a corosync that
 * hangs reports no loss. Members gossip every DEADLINE_GOSSIP_MS. Must stay far below the self-fence's own
 * deadline, and above the second by which a daemon can be late on a loaded host. */
#define DEADLINE_HEARD_MS 5000
#define DEADLINE_GOSSIP_MS 1000
#define DEADLINE_GOSSIP_MIGRATION_MS 250
/* The longest time-out of a host's watchdog (host.yaml): from the last time it was fed to the reset. */
#define DEADLINE_WATCHDOG_MS 10000
/* Time alone proves that a host with a watchdog is dead, so long after it left the membership: by then it has killed its HA domains
 * and its watchdog has reset it. What happens on that host meanwhile is drawn, and asserted, in agent/core/selffence.[ch]. */
#define DEADLINE_PROOF_BY_TIME_MS 45000

_Static_assert(3 * DEADLINE_GOSSIP_MS < DEADLINE_HEARD_MS, "one lost gossip must not look like a lost member");

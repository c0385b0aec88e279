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

_Static_assert(3 * DEADLINE_GOSSIP_MS < DEADLINE_HEARD_MS, "one lost gossip must not look like a lost member");

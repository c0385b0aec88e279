/* Which goals and which word of a quorum count: pure. Goals are ordered by (epoch, index) of the log of one cluster. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/agent.pb-c.h"

/* The newest goals that this host ever obeyed, over restarts. cluster_uuid NULL: none. Borrowed. */
struct goals_order {
	const char *cluster_uuid;
	uint64_t epoch, index;
};
/* They come from a clusterd that is behind: they must not be obeyed. The same ones again are not older. */
bool goals_order_older(const struct goals_order *known, const Gantry__AgentGoals *goals);
/* have_goals: this agent obeys some since its start. A "quorate" of an older epoch than theirs is not of the cluster that
 * decides, and does not put the self-fence off. */
bool goals_order_quorum_counts(const struct goals_order *known, bool have_goals, const Gantry__AgentQuorum *quorum);

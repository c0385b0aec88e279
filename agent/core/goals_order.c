#include "agent/core/goals_order.h"

#include <string.h>

#include "lib/mutant.h"

bool goals_order_older(const struct goals_order *known, const Gantry__AgentGoals *goals)
{
	if (MUTANT(old_goals_obeyed) || known->cluster_uuid == NULL || strcmp(known->cluster_uuid, goals->cluster_uuid) != 0)
		return false;
	return goals->epoch < known->epoch || (goals->epoch == known->epoch && goals->index < known->index);
}

bool goals_order_quorum_counts(const struct goals_order *known, bool have_goals, const Gantry__AgentQuorum *quorum)
{
	return !(quorum->quorate && have_goals && quorum->epoch < known->epoch);
}

/* Commands that change a domain. */
#include <errno.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "clusterctl/job_wait.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"

static int set_goal(struct invocation *inv, Gantry__DomainGoalState goal, const char *how)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdDomainGoal body = GANTRY__CMD_DOMAIN_GOAL__INIT;

	body.domain = (char *)inv->args[0];
	body.goal = goal;
	body.how = (char *)how;
	command.body_case = GANTRY__COMMAND__BODY_DOMAIN_GOAL;
	command.domain_goal = &body;
	return job_run(inv, &command, NULL);
}

int cmd_shutdown(struct invocation *inv)
{
	return set_goal(inv, GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_STOPPED, "shutdown");
}

int cmd_destroy(struct invocation *inv)
{
	return set_goal(inv, GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_STOPPED, "destroy");
}

int cmd_pause(struct invocation *inv)
{
	return set_goal(inv, GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_PAUSED, "");
}

int cmd_unpause(struct invocation *inv)
{
	return set_goal(inv, GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_RUNNING, "");
}

int cmd_start(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdDomainStart body = GANTRY__CMD_DOMAIN_START__INIT;
	const char *host = invocation_option(inv, "host");

	body.domain = (char *)inv->args[0];
	if (host != NULL)
		body.host = (char *)host;
	command.body_case = GANTRY__COMMAND__BODY_DOMAIN_START;
	command.domain_start = &body;
	return job_run(inv, &command, NULL);
}

int cmd_undefine(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdDomainUndefine body = GANTRY__CMD_DOMAIN_UNDEFINE__INIT;
	_cleanup_free_ char *done = str_printf("%s is forgotten; its volumes are still there", inv->args[0]);

	body.domain = (char *)inv->args[0];
	command.body_case = GANTRY__COMMAND__BODY_DOMAIN_UNDEFINE;
	command.domain_undefine = &body;
	return job_run(inv, &command, done);
}

int cmd_migrate(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdMigrateStart body = GANTRY__CMD_MIGRATE_START__INIT;
	const char *downtime = invocation_option(inv, "max-downtime"), *bandwidth = invocation_option(inv, "bandwidth");
	uint64_t number = 0;
	int rc = 0;

	body.domain = (char *)inv->args[0];
	body.destination = (char *)inv->args[1];
	if (downtime != NULL)
		rc = units_parse_number("--max-downtime", downtime, 1, 600000, &number, &inv->err);
	body.max_downtime_ms = number;
	number = 0;
	if (rc == 0 && bandwidth != NULL)
		rc = units_parse_bytes("--bandwidth", bandwidth, 1, &number, &inv->err);
	body.bandwidth_bytes_per_s = number;
	if (rc < 0)
		return rc;
	command.body_case = GANTRY__COMMAND__BODY_MIGRATE_START;
	command.migrate_start = &body;
	return job_run(inv, &command, NULL);
}

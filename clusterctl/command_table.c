/* All commands. Sorted by what they are about; the groups of two words stand together. */
#include <limits.h>

#include "clusterctl/cmd.h"
#include "lib/cleanup.h"

#define MANY UINT_MAX

#define HOST_OPTIONS                                                                                                   \
	{"address", 0, "IP", "address of this host for corosync, the API and migrations; default: its only one", ARG_TEXT},    \
	{"host-name", 0, "NAME", "name of this host in the cluster; default: its host name", ARG_TEXT},                \
	{"bridge", 0, "BRIDGE", "bridge of domains that name none; default gbr0", ARG_TEXT},                           \
	{"uplink", 0, "INTERFACE", "network card to put into that bridge; default: none", ARG_TEXT},                   \
	{"watchdog", 0, "DEVICE", "watchdog that resets this host when it has no quorum (/dev/watchdog); default: none", ARG_FILE}, \
	{"accel", 0, "MODE", "kvm, tcg or auto (try whether KVM really runs a guest); default auto", ARG_TEXT},                   \
	{"no-start", 0, NULL, "leave starting the services to the host's own service manager", ARG_NONE},              \
	{"force", 0, NULL, "set a former cluster's files aside", ARG_NONE}

const struct command_option command_globals[] = {
	{"output", 'o', "FORMAT", "table, json, yaml or name", ARG_FORMAT},
	{"timeout", 0, "S", "wait at most so many seconds (answers: 30 unless given; tasks: no end unless given)", ARG_TEXT},
	{"no-wait", 0, NULL, "do not wait for the task to end; print its number", ARG_NONE},
	{"committed", 0, NULL, "refuse to answer from what a host without a quorum knew last", ARG_NONE},
	{"socket", 0, "PATH", "clusterd's socket on this host", ARG_FILE},
	{"host", 0, "ADDRESS", "(before the command) ask the clusterd of another host, with this host's certificate", ARG_HOST},
	{"help", 'h', NULL, "say what the command does", ARG_NONE},
	{"version", 0, NULL, "print the version", ARG_NONE},
	{NULL},
};

const struct command command_table[] = {
	{.name = "create", .xl = "create", .arguments = "FILE [KEY=VALUE...]", .min_args = 1, .max_args = MANY,
	 .kinds = {ARG_FILE, ARG_TEXT, ARG_TEXT}, .summary = "Make a domain from an xl.cfg file and start it", .run = cmd_create,
	 .details = "FILE is in xl's language ('-': stdin); each KEY=VALUE counts as a line behind it. The cluster chooses the host, and\n"
		    "starts the domain elsewhere when that host dies.",
	 .options = {{"host", 0, "HOST", "where to start it first", ARG_HOST},
		     {"no-start", 0, NULL, "define it only", ARG_NONE},
		     {"no-ha", 0, NULL, "do not restart it elsewhere when its host dies", ARG_NONE},
		     {"dry-run", 'N', NULL, "show what the file comes to, and do nothing", ARG_NONE}}},
	{.name = "start", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN}, .run = cmd_start,
	 .summary = "Start a domain that is defined", .options = {{"host", 0, "HOST", "where to start it", ARG_HOST}}},
	{.name = "list", .xl = "list", .arguments = "[DOMAIN]", .max_args = 1, .kinds = {ARG_DOMAIN}, .run = cmd_list,
	 .summary = "List the domains of the cluster",
	 .details = "State has xl's letters: r running, b blocked (not told apart from r), p paused, s shutting down, c crashed, d dying."},
	{.name = "show", .xl = "list -l", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN},
	 .run = cmd_show, .summary = "Show all about one domain"},
	{.name = "console", .xl = "console", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN},
	 .run = cmd_console, .summary = "Attach to a domain's serial console, wherever it runs",
	 .details = "Ctrl-] leaves. Without a terminal, stdin is typed, and the output is followed until it is silent.",
	 .options = {{"history", 0, "SIZE", "so much of what was printed before; default 4K", ARG_TEXT},
		     {"read-only", 0, NULL, "only look on", ARG_NONE}}},
	{.name = "shutdown", .xl = "shutdown", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN},
	 .run = cmd_shutdown, .summary = "Ask a domain's guest to shut down"},
	{.name = "destroy", .xl = "destroy", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN},
	 .run = cmd_destroy, .summary = "Stop a domain at once, as by pulling the plug"},
	{.name = "pause", .xl = "pause", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN},
	 .run = cmd_pause, .summary = "Stop a domain's processors"},
	{.name = "unpause", .xl = "unpause", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN},
	 .run = cmd_unpause, .summary = "Let a paused domain go on"},
	{.name = "migrate", .xl = "migrate", .arguments = "DOMAIN HOST", .min_args = 2, .max_args = 2,
	 .kinds = {ARG_DOMAIN, ARG_HOST}, .run = cmd_migrate, .summary = "Move a running domain to another host",
	 .details = "Progress goes to stderr, the figures of the move to stdout. If it fails, the domain goes on where it was.",
	 .options = {{"max-downtime", 0, "MS", "stand still for at most so long", ARG_TEXT},
		     {"bandwidth", 0, "RATE", "use at most so many bytes a second, such as 100M", ARG_TEXT}}},
	{.name = "undefine", .xl = "delete", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN},
	 .run = cmd_undefine, .summary = "Forget a stopped domain; its volumes stay"},
	{.name = "vol create", .arguments = "POOL/NAME SIZE", .min_args = 2, .max_args = 2, .kinds = {ARG_POOL, ARG_TEXT},
	 .run = cmd_vol_create, .summary = "Create a volume", .options = {{"format", 0, "FORMAT", "raw or qcow2; default qcow2", ARG_TEXT}}},
	{.name = "vol list", .arguments = "[POOL]", .max_args = 1, .kinds = {ARG_POOL}, .run = cmd_vol_list, .summary = "List volumes"},
	{.name = "vol delete", .arguments = "POOL/NAME", .min_args = 1, .max_args = 1, .kinds = {ARG_VOLUME},
	 .run = cmd_vol_delete, .summary = "Delete a volume and what is on it"},
	{.name = "pool add", .arguments = "NAME TARGET", .min_args = 2, .max_args = 2, .kinds = {ARG_TEXT, ARG_TEXT},
	 .run = cmd_pool_add, .summary = "Make a storage pool known",
	 .details = "TARGET is dir:/PATH, a folder of each host, or nfs://ADDRESS/EXPORT[/PATH].",
	 .options = {{"shared", 0, NULL, "dir: the folder has the same content on every host", ARG_NONE}}},
	{.name = "pool list", .arguments = "", .run = cmd_pool_list, .summary = "List pools, and how the hosts see them"},
	{.name = "pool delete", .arguments = "NAME", .min_args = 1, .max_args = 1, .kinds = {ARG_POOL}, .run = cmd_pool_delete,
	 .summary = "Forget a pool; what is stored in it stays"},
	{.name = "host list", .arguments = "", .run = cmd_host_list, .summary = "List the hosts"},
	{.name = "host show", .xl = "info", .arguments = "HOST", .min_args = 1, .max_args = 1, .kinds = {ARG_HOST},
	 .run = cmd_host_show, .summary = "Show all about one host"},
	{.name = "host remove", .arguments = "HOST", .min_args = 1, .max_args = 1, .kinds = {ARG_HOST}, .run = cmd_host_remove,
	 .summary = "Take a host out of the cluster for good"},
	{.name = "fence list", .arguments = "", .run = cmd_fence_list, .summary = "List how each host can be proven dead"},
	{.name = "fence set", .arguments = "HOST AGENT [KEY=VALUE...] [+ AGENT [KEY=VALUE...]]...", .min_args = 2, .max_args = MANY,
	 .kinds = {ARG_HOST, ARG_TEXT, ARG_TEXT}, .run = cmd_fence_set, .summary = "Say by which fence agents a host is switched off",
	 .details = "AGENT is a program such as fence_ipmilan; see its man page for the keys. Level 1 is tried first, level 2 when that\n"
		    "fails: with '+' between them the agents get the levels 1, 2, ... and replace what was set before. 'watchdog' stands for\n"
		    "the host's own watchdog, which resets it when it has lost the quorum: proven by time alone.\n\n"
		    "  clusterctl fence set hostB fence_ipmilan ip=192.0.2.102 username=admin password=... lanplus=1 + watchdog",
	 .options = {{"level", 0, "N", "set this level only, and leave the others", ARG_TEXT}}},
	{.name = "fence test", .arguments = "HOST", .min_args = 1, .max_args = 1, .kinds = {ARG_HOST}, .run = cmd_fence_test,
	 .summary = "Try each of a host's fence devices by itself",
	 .details = "Asks each for its status. With --really it switches the host off, sees that it is off, waits until the cluster has seen it\n"
		    "too, and switches it on again; the host may run no domain then, and another one has to be asked. A line for each step.\n\n"
		    "  clusterctl fence test hostB\n"
		    "  clusterctl fence test hostB --really --yes",
	 .options = {{"really", 0, NULL, "switch it off and on again", ARG_NONE}, {"yes", 0, NULL, "yes, it may be switched off", ARG_NONE}}},
	{.name = "fence run", .arguments = "HOST", .min_args = 1, .max_args = 1, .kinds = {ARG_HOST}, .run = cmd_fence_run,
	 .summary = "Switch a host off by its fence devices, alive or not, and wait until it is dead",
	 .details = "For a host that lives, but not well. Its domains start elsewhere, as if it had been lost.\n\n"
		    "  clusterctl fence run hostB --yes --reason 'disk controller hangs'",
	 .options = {{"yes", 0, NULL, "yes, it may be switched off", ARG_NONE}, {"reason", 0, "TEXT", "why, for the history", ARG_TEXT}}},
	{.name = "fence remove", .arguments = "HOST", .min_args = 1, .max_args = 1, .kinds = {ARG_HOST}, .run = cmd_fence_remove,
	 .summary = "Forget a host's fence agents"},
	{.name = "fence confirm", .arguments = "HOST", .min_args = 1, .max_args = 1, .kinds = {ARG_HOST}, .run = cmd_fence_confirm,
	 .summary = "Vouch that a lost host is off, so that its domains start elsewhere",
	 .options = {{"yes", 0, NULL, "it is off: somebody has looked", ARG_NONE}}},
	{.name = "fence history", .arguments = "[HOST]", .max_args = 1, .kinds = {ARG_HOST}, .run = cmd_fence_history,
	 .summary = "Print what became of hosts, and what their fence devices did"},
	{.name = "ha set", .arguments = "DOMAIN", .min_args = 1, .max_args = 1, .kinds = {ARG_DOMAIN}, .run = cmd_ha_set,
	 .summary = "Say how the cluster keeps a domain up; without options: show it",
	 .details = "What is not named stays as it is. Times are such as 90s, 30m, 2h.\n\n"
		    "  clusterctl ha set db1 --priority 200 --order 1 --ready port:10.0.0.5:5432\n"
		    "  clusterctl ha set batch7 --priority 10 --gives-way yes --restarts 1",
	 .options = {{"priority", 0, "N", "0 to 255: the higher one gets room first; default 100", ARG_TEXT},
		     {"order", 0, "N", "start after all of the lower orders are ready; 0 (default): wait for nobody", ARG_TEXT},
		     {"delay", 0, "S", "from ready until the next order may start; default 0", ARG_TEXT},
		     {"ready", 0, "BY", "running (default), agent, time, or port:ADDRESS:PORT of the guest", ARG_READY},
		     {"ready-time", 0, "S", "time: ready so long after the start; else: wait no longer; default 120", ARG_TEXT},
		     {"restarts", 0, "N", "after crashes, in a row on one host; then elsewhere as often; default 3", ARG_TEXT},
		     {"isolation", 0, "WORD", "on a host without quorum: stop (default), or leave running", ARG_ISOLATION},
		     {"gives-way", 0, "WORD", "yes: stopped for one of a higher priority that finds no room", ARG_YES_NO},
		     {"hung", 0, "S", "restart it when its guest agent was silent for so long; 0 (default): never", ARG_TEXT}}},
	{.name = "ha status", .arguments = "", .run = cmd_ha_status,
	 .summary = "Show the HA domains, and what would happen if each host failed now"},
	{.name = "ha disarm", .arguments = "", .run = cmd_ha_disarm, .summary = "Switch off all automatic action, for a while",
	 .details = "For work on the network or the store during which hosts may seem lost.\n\n"
		    "  clusterctl ha disarm --for 45m --reason 'switch firmware'",
	 .options = {{"for", 0, "TIME", "such as 45m or 2h, at most 24h; default 30m. Then it is on again", ARG_TEXT},
		     {"reason", 0, "TEXT", "why, for those who find it off", ARG_TEXT}}},
	{.name = "ha arm", .arguments = "", .run = cmd_ha_arm, .summary = "Switch automatic action on again"},
	{.name = "whatif fail", .arguments = "HOST...", .min_args = 1, .max_args = MANY, .kinds = {ARG_HOST, ARG_HOST, ARG_HOST},
	 .run = cmd_whatif_fail, .summary = "Say which domains would start where if these hosts failed now",
	 .details = "Nothing is done. The exit status is 113 if an HA domain would not run again:\n\n"
		    "  clusterctl whatif fail hostB && ssh hostB poweroff"},
	{.name = "task list", .arguments = "", .run = cmd_task_list, .summary = "List tasks, running and ended",
	 .options = {{"running", 0, NULL, "only those that run", ARG_NONE}}},
	{.name = "task watch", .arguments = "TASK", .min_args = 1, .max_args = 1, .kinds = {ARG_TASK}, .run = cmd_task_watch,
	 .summary = "Follow a task to its end"},
	{.name = "task cancel", .arguments = "TASK", .min_args = 1, .max_args = 1, .kinds = {ARG_TASK}, .run = cmd_task_cancel,
	 .summary = "Ask a task to stop"},
	{.name = "events", .arguments = "", .run = cmd_events, .summary = "Print what has happened",
	 .options = {{"watch", 'w', NULL, "go on as things happen", ARG_NONE}}},
	{.name = "cluster init", .arguments = "NAME", .min_args = 1, .max_args = 1, .kinds = {ARG_TEXT}, .run = cmd_cluster_init,
	 .summary = "Make a cluster with this host as its first member",
	 .details = "Writes the host's files (/etc/gantry, corosync's), starts the services, and prints how others join. An init that\n"
		    "was cut off is gone on with when it is given again.",
	 .options = {HOST_OPTIONS, {"token", 0, "MS", "corosync's token: a silent host is missed after so long; default 1000", ARG_TEXT}}},
	{.name = "cluster join", .arguments = "ADDRESS", .min_args = 1, .max_args = 1, .kinds = {ARG_TEXT}, .run = cmd_cluster_join,
	 .summary = "Make this host a member of the cluster of the host at ADDRESS",
	 .options = {{"token", 0, "TOKEN", "from 'cluster init' or 'cluster token' on that host", ARG_TEXT}, HOST_OPTIONS}},
	{.name = "cluster token", .arguments = "", .run = cmd_cluster_token, .summary = "Make a token that lets one host join"},
	{.name = "cluster status", .arguments = "", .run = cmd_cluster_status, .summary = "Show members, quorum and the state of the log"},
	{.name = "cluster verify", .arguments = "", .run = cmd_cluster_verify,
	 .summary = "Look for what is wrong, or would be when a host fails",
	 .details = "A line for each finding, with its remedy. The exit status is 0 if nothing is wrong, 1 if something is."},
	{.name = "cluster set", .arguments = "KEY=VALUE", .min_args = 1, .max_args = 1, .kinds = {ARG_SETTING}, .run = cmd_cluster_set,
	 .summary = "Change a setting of the cluster",
	 .details = "fence-share=PERCENT  of the other hosts: when more than that seem lost at once, nobody is fenced; default 50"},
	{.name = "completion", .arguments = "bash", .min_args = 1, .max_args = 1, .kinds = {ARG_TEXT}, .run = cmd_completion,
	 .summary = "Print a script that completes commands and names in the shell"},
	{.name = "help", .arguments = "[COMMAND]", .max_args = 2, .kinds = {ARG_COMMAND, ARG_TEXT}, .run = cmd_help,
	 .summary = "Say what there is, or what a command does"},
	{.name = "version", .arguments = "", .run = cmd_version, .summary = "Print the version"},
};
const size_t command_table_n = ARRAY_SIZE(command_table);

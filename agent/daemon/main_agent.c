/* gantry-agent: makes this host match its goals. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "agent/daemon/agent_clients.h"
#include "agent/daemon/agent_pass.h"
#include "agent/daemon/agent_state.h"
#include "agent/daemon/domain_adopt.h"
#include "agent/daemon/goals_note.h"
#include "agent/daemon/host_watchdog.h"
#include "agent/daemon/reporter.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/fault.h"
#include "lib/log.h"
#include "lib/paths.h"

#define SIGNALS 3
#define BLACKBOX PATH_LOG "/gantry-agent.blackbox"
#define STOP_TAKES_MS 1500 /* connections flush; then the process ends whatever they do */

static const char usage[] =
    "gantry-agent: runs the domains of this host as the cluster wants it\n"
    "\n"
    "usage: gantry-agent [--config FILE] [--debug]\n"
    "  -c, --config FILE  this host's settings (" PATH_HOST_CONFIG ")\n"
    "  -d, --debug        log what is decided, too\n"
    "  -h, --help         this text\n"
    "  -V, --version      the version\n"
    "\n"
    "It is started by its service unit. SIGTERM ends the agent alone: running domains go on\n"
    "and are found again by the next agent. SIGUSR1 writes the flight recorder to\n" BLACKBOX ".\n";

struct main_options {
	const char *config;
	int debug;
};

static int main__options(int argc, char **argv, struct main_options *o)
{
	static const struct option long_options[] = {
	    {"config", required_argument, NULL, 'c'},
	    {"debug", no_argument, NULL, 'd'},
	    {"help", no_argument, NULL, 'h'},
	    {"version", no_argument, NULL, 'V'},
	    {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "c:dhV", long_options, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->config = optarg;
			break;
		case 'd':
			o->debug = 1;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		case 'V':
			puts("gantry-agent " GANTRY_VERSION);
			exit(0);
		default:
			return GANTRY__STATUS__STATUS_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "gantry-agent: unexpected argument '%s'; see --help\n", argv[optind]);
		return GANTRY__STATUS__STATUS_USAGE;
	}
	return 0;
}

static void main__on_tick(uv_timer_t *timer)
{
	agent_pass(timer->data);
}

static void main__on_alive(uv_timer_t *timer)
{
	sd_notify(0, "WATCHDOG=1");
}

/* The service manager ends an agent whose loop stands still: the next one finds the QEMUs. Before the host's own watchdog has the same
 * idea of the host (WatchdogSec in systemd/gantry-agent.service). */
static void main__start_alive(uv_loop_t *loop, uv_timer_t *timer)
{
	uint64_t interval_us = 0;

	uv_timer_init(loop, timer);
	if (sd_watchdog_enabled(0, &interval_us) > 0 && interval_us > 3000)
		uv_timer_start(timer, main__on_alive, 0, interval_us / 3000);
}

static void main__on_deadline(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

static void main__on_signal(uv_signal_t *signal, int number)
{
	struct agent *a = signal->data;

	if (a->stopping)
		return;
	log_notice("signal %d: the agent ends, the domains go on", number);
	sd_notify(0, "STOPPING=1");
	a->stopping = true;
	host_watchdog_leave(a);
	agent_clients_close(a);
	uv_timer_start(&a->tick, main__on_deadline, a->n_clients > 0 ? STOP_TAKES_MS : 0, 0);
}

static void main__on_dump(uv_signal_t *signal, int number)
{
	log_dump_blackbox();
}

static int main__signals(struct agent *a, uv_signal_t *signals)
{
	static const struct {
		int number;
		uv_signal_cb cb;
	} wanted[SIGNALS] = {{SIGTERM, main__on_signal}, {SIGINT, main__on_signal}, {SIGUSR1, main__on_dump}};

	for (size_t i = 0; i < SIGNALS; i++) {
		uv_signal_init(a->loop, &signals[i]);
		signals[i].data = a;
		if (uv_signal_start(&signals[i], wanted[i].cb, wanted[i].number) < 0)
			return -EINVAL;
	}
	return 0;
}

static int main__prepare(struct agent *a, const char *config, struct err *err)
{
	uint64_t now = goals_note_boot_ms();
	int rc = hostconf_read(config, &a->conf, err);

	if (rc == 0)
		rc = path_make_dirs(PATH_DOMAINS, 0711, err);
	if (rc == 0)
		rc = path_make_dirs(PATH_ENDED, 0700, err);
	if (rc == 0)
		rc = path_make_dirs(PATH_LOG, 0755, err);
	if (rc == 0)
		rc = goals_note_load(a, err);
	if (rc < 0)
		return rc;
	rc = storage_new(a->loop, a->conf.name, &a->storage);
	if (rc < 0)
		return err_set(err, -rc, "storage: %s", strerror(-rc));
	selffence_init(&a->selffence, goals_note_quorum_load(now));
	selffence_clusterd(&a->selffence, false, goals_note_boot_ms());
	a->reporter = reporter_new(a);
	uv_idle_init(a->loop, &a->wake);
	a->wake.data = a;
	uv_timer_init(a->loop, &a->tick);
	a->tick.data = a;
	/* Two agents would fight for every QEMU: the socket is taken before anything is touched. */
	rc = agent_clients_listen(a, err);
	if (rc == 0)
		host_watchdog_init(a);
	return rc;
}

int main(int argc, char **argv)
{
	struct main_options options = {.config = PATH_HOST_CONFIG};
	uv_signal_t signals[SIGNALS];
	uv_timer_t alive;
	struct agent a = {0};
	struct err err;
	int rc = main__options(argc, argv, &options);

	if (rc != 0)
		return rc;
	fault_init();
	/* A peer that closes its socket is an error of that write, not the end of the agent. */
	signal(SIGPIPE, SIG_IGN);
	/* Read once by libuv, at its first use: a stalled pool holds one thread, and there may be many pools. */
	setenv("UV_THREADPOOL_SIZE", "16", 0);
	log_open("gantry-agent", options.debug, BLACKBOX);
	a.loop = uv_default_loop();
	rc = main__prepare(&a, options.config, &err);
	if (rc == 0 && main__signals(&a, signals) < 0)
		rc = err_set(&err, EINVAL, "signals cannot be caught");
	if (rc < 0) {
		log_error("%s", err.text);
		fprintf(stderr, "gantry-agent: %s\n", err.text);
		return err_status(&err, rc);
	}
	log_notice("gantry-agent " GANTRY_VERSION " on host %s: %u domains found", a.conf.name, domain_adopt_all(&a));
	uv_timer_start(&a.tick, main__on_tick, 0, AGENT_TICK_MS);
	main__start_alive(a.loop, &alive);
	sd_notify(0, "READY=1");
	uv_run(a.loop, UV_RUN_DEFAULT);
	/* All state is on disk or in the QEMUs. Not return: libuv would wait for the thread that a dead NFS server
	 * holds. */
	log_close();
	_exit(0);
}

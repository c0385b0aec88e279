/* clusterd: options, signals, the service manager. The rest is in daemon_parts.c. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>
#include <uv.h>

#include "clusterd/daemon/daemon_parts.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/hostconf.h"
#include "lib/log.h"
#include "lib/paths.h"

#define STOP_TIMEOUT_S 5   /* a disk or corosync that hangs must not keep the service manager waiting */

struct program {
	uv_loop_t loop;
	struct hostconf conf;
	struct daemon_parts *parts;
	uv_signal_t term, interrupt, dump;
	uv_timer_t watchdog;
	bool stopping;
	int status;
};

static const char usage[] =
	"Usage: clusterd [OPTION]...\n"
	"Keeps this host in its Gantry cluster: membership, the replicated state, decisions.\n"
	"\n"
	"  -c, --config FILE  this host's settings (default " PATH_HOST_CONFIG ")\n"
	"  -d, --debug        log more\n"
	"  -h, --help         show this and end\n"
	"  -V, --version      show the version and end\n"
	"\n"
	"SIGTERM leaves the group and ends it; domains go on running. SIGUSR1 writes the flight recorder to\n"
	PATH_LOG "/clusterd.blackbox. See clusterd(8).\n";

static void close_handle(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

static void on_stopped(void *data)
{
	struct program *p = data;

	close_handle((uv_handle_t *)&p->term);
	close_handle((uv_handle_t *)&p->interrupt);
	close_handle((uv_handle_t *)&p->dump);
	close_handle((uv_handle_t *)&p->watchdog);
}

/* The log on disk bears this as it bears a power loss; the group sees a process that died. */
static void on_stop_timeout(int signum)
{
	static const char text[] = "clusterd: the disk or corosync hangs: ending without them\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

static void stop(struct program *p)
{
	if (p->stopping)
		return;
	p->stopping = true;
	signal(SIGALRM, on_stop_timeout);
	alarm(STOP_TIMEOUT_S);
	daemon_parts_stop(p->parts, on_stopped, p);
}

static void on_stop_signal(uv_signal_t *handle, int signum)
{
	log_notice("signal %d: leaving the group", signum);
	sd_notify(0, "STOPPING=1\nSTATUS=leaving the group");
	stop(handle->data);
}

static void on_dump_signal(uv_signal_t *handle, int signum)
{
	log_dump_blackbox();
}

static void on_watchdog(uv_timer_t *timer)
{
	sd_notify(0, "WATCHDOG=1");
}

static void start_watchdog(struct program *p)
{
	uint64_t interval_us = 0;

	if (sd_watchdog_enabled(0, &interval_us) > 0 && interval_us > 3000)
		uv_timer_start(&p->watchdog, on_watchdog, 0, interval_us / 3000);
}

static int run(struct program *p)
{
	struct err err = {0};
	int rc;

	uv_loop_init(&p->loop);
	uv_signal_init(&p->loop, &p->term);
	uv_signal_init(&p->loop, &p->interrupt);
	uv_signal_init(&p->loop, &p->dump);
	uv_timer_init(&p->loop, &p->watchdog);
	p->term.data = p->interrupt.data = p->dump.data = p->watchdog.data = p;
	rc = daemon_parts_start(&p->loop, &p->conf, &p->parts, &err);
	if (rc < 0) {
		log_error("clusterd does not start: %s", err.text);
		p->status = 1;
		if (p->parts)
			stop(p);
		else
			on_stopped(p);
	} else {
		uv_signal_start(&p->term, on_stop_signal, SIGTERM);
		uv_signal_start(&p->interrupt, on_stop_signal, SIGINT);
		uv_signal_start(&p->dump, on_dump_signal, SIGUSR1);
		start_watchdog(p);
		sd_notify(0, "READY=1");
		log_notice("clusterd %s on host %s", GANTRY_VERSION, p->conf.name);
	}
	uv_run(&p->loop, UV_RUN_DEFAULT);
	rc = uv_loop_close(&p->loop);
	if (rc < 0)
		log_warning("the loop still holds handles at the end: %s", uv_strerror(rc));
	return p->status;
}

static int make_folders(struct err *err)
{
	int rc = path_make_dirs(PATH_STATE, 0700, err);

	if (rc == 0)
		rc = path_make_dirs(PATH_RUN, 0755, err);
	if (rc == 0)
		rc = path_make_dirs(PATH_LOG, 0755, err);
	return rc;
}

/* -1: go on; else the exit status. */
static int read_options(int argc, char **argv, const char **config, bool *debug)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {"debug", no_argument, NULL, 'd'},
						{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "c:dhV", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			*config = optarg;
			break;
		case 'd':
			*debug = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("clusterd " GANTRY_VERSION);
			return 0;
		default:
			fputs("Try 'clusterd --help'.\n", stderr);
			return 64;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "clusterd: '%s' is one argument too many; try 'clusterd --help'\n", argv[optind]);
		return 64;
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct program *p;
	const char *config = PATH_HOST_CONFIG;
	struct err err = {0};
	bool debug = false;
	int status = read_options(argc, argv, &config, &debug);

	if (status >= 0)
		return status;
	/* A peer that hangs up is an error of write(), and so is a disk quota. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	/* Disk, connecting to corosync, leaving it, asking votequorum: each may hang, none may stop the others. */
	setenv("UV_THREADPOOL_SIZE", "8", 0);
	p = mem_alloc(sizeof(*p));
	if (hostconf_read(config, &p->conf, &err) < 0 || make_folders(&err) < 0) {
		fprintf(stderr, "clusterd: %s\n", err.text);
		hostconf_free(&p->conf);
		free(p);
		return 1;
	}
	log_open("clusterd", debug, PATH_LOG "/clusterd.blackbox");
	status = run(p);
	log_notice("clusterd ended");
	log_close();
	hostconf_free(&p->conf);
	free(p);
	return status;
}

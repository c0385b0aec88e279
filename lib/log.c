#include "lib/log.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "lib/cleanup.h"

enum {
	LOG_BLACKBOX_BYTES = 256 << 10,
	LOG_CRASH_DUMP_S = 5, /* writing the flight recorder may not keep a dead daemon alive */
	LOG_LINE_MAX = 1024,
};

/* One log per process, as libqb's own state is. */
static char log__blackbox_path[256];
static int log__journal_target = -1;
static const int log__crash_signals[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};

/* systemd says which device and inode its journal stream has: is stderr that one? */
static bool log__stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

/* The journal takes the priority from the front of the line (sd-daemon(3)) and adds time and name itself. */
static void log__to_journal(int32_t target, struct qb_log_callsite *cs, struct timespec *when, const char *msg)
{
	fprintf(stderr, "<%d>%s\n", cs->priority, msg);
}

static void log__on_crash(int sig)
{
	/* Not async-signal-safe, but the process is lost anyway. If it hangs here, the alarm ends it. SA_RESETHAND
	 * has put the default action back: a second fault ends it, too. */
	signal(SIGALRM, SIG_DFL);
	alarm(LOG_CRASH_DUMP_S);
	log_dump_blackbox();
	raise(sig);
}

static void log__catch_crashes(void)
{
	struct sigaction action = {.sa_handler = log__on_crash, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};

	for (size_t i = 0; i < ARRAY_SIZE(log__crash_signals); i++)
		sigaction(log__crash_signals[i], &action, NULL);
}

static void log__enable(int target, int priority)
{
	qb_log_filter_ctl(target, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, "*", (uint8_t)priority);
	qb_log_ctl(target, QB_LOG_CONF_MAX_LINE_LEN, LOG_LINE_MAX);
	qb_log_ctl(target, QB_LOG_CONF_ENABLED, QB_TRUE);
}

void log_open(const char *program, int debug, const char *blackbox_path)
{
	int priority = debug ? LOG_DEBUG : LOG_INFO;

	qb_log_init(program, LOG_DAEMON, (uint8_t)priority);
	qb_log_ctl(QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
	if (log__stderr_is_journal())
		log__journal_target = qb_log_custom_open(log__to_journal, NULL, NULL, NULL);
	if (log__journal_target >= 0) {
		qb_log_format_set(log__journal_target, "%b");
		log__enable(log__journal_target, priority);
	} else {
		qb_log_format_set(QB_LOG_STDERR, "%T %N %7p: %b");
		log__enable(QB_LOG_STDERR, priority);
	}
	if (!blackbox_path || strlen(blackbox_path) >= sizeof(log__blackbox_path))
		return;
	strcpy(log__blackbox_path, blackbox_path);
	qb_log_ctl(QB_LOG_BLACKBOX, QB_LOG_CONF_SIZE, LOG_BLACKBOX_BYTES);
	/* The recorder keeps what the log leaves out. */
	log__enable(QB_LOG_BLACKBOX, LOG_DEBUG);
	log__catch_crashes();
}

void log_dump_blackbox(void)
{
	if (*log__blackbox_path)
		qb_log_blackbox_write_to_file(log__blackbox_path);
}

void log_close(void)
{
	if (*log__blackbox_path)
		for (size_t i = 0; i < ARRAY_SIZE(log__crash_signals); i++)
			signal(log__crash_signals[i], SIG_DFL);
	*log__blackbox_path = '\0';
	log__journal_target = -1;
	qb_log_fini();
}

/* Logging by libqb: to stderr or the journal, and a flight recorder (blackbox) that is
 * written to a file on a crash (here) or on SIGUSR1 (the daemon's loop takes the signal and calls
 * log_dump_blackbox()); qb-blackbox shows it. Not for the pure cores. */
#pragma once

#include <qb/qblog.h>

/* program: clusterd, gantry-agent... debug: also LOG_DEBUG. blackbox_path may be NULL.
 * Call once, before any log_*. */
void log_open(const char *program, int debug, const char *blackbox_path);
void log_dump_blackbox(void);
void log_close(void);
#define log_error(...) qb_log(LOG_ERR, __VA_ARGS__)
#define log_warning(...) qb_log(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) qb_log(LOG_NOTICE, __VA_ARGS__)
#define log_info(...) qb_log(LOG_INFO, __VA_ARGS__)
#define log_debug(...) qb_log(LOG_DEBUG, __VA_ARGS__)

#include "agent/daemon/host_watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/atomic_file.h"
#include "lib/log.h"
#include "lib/paths.h"

#define ARMED_NOTE PATH_RUN "/agent-watchdog"
#define OPEN_AGAIN_MS 1000

void host_watchdog_init(struct agent *a)
{
	a->watchdog.fd = -1;
	if (a->conf.watchdog[0] == '\0')
		return;
	selffence_be_strict(&a->selffence);
	/* Not fed here: whether this host is fenced is known in the first pass. */
	a->watchdog.wanted = access(ARMED_NOTE, F_OK) == 0;
}

/* A real watchdog is set and asked what it made of it; what only takes writes has no time of its own. */
static int host_watchdog__set(const struct agent *a, int fd, struct err *err)
{
	const char *path = a->conf.watchdog;
	int timeout_s = (int)a->conf.watchdog_timeout_s;
	struct stat st;

	if (fstat(fd, &st) < 0 || !(S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		return err_set(err, EINVAL, "watchdog %s is neither a device nor a FIFO; name a watchdog device in host.yaml", path);
	if (ioctl(fd, WDIOC_SETTIMEOUT, &timeout_s) == 0 || ioctl(fd, WDIOC_GETTIMEOUT, &timeout_s) == 0) {
		if (timeout_s * 1000 <= SELFFENCE_WATCHDOG_MS)
			return 0;
		return err_set(err, ERANGE,
			       "watchdog %s cannot be set to %u s, it takes %d: it would reset this host later than the others wait; use another one",
			       path, a->conf.watchdog_timeout_s, timeout_s);
	}
	return errno == ENOTTY || errno == EOPNOTSUPP
		       ? 0
		       : err_set(err, errno, "watchdog %s: its time-out cannot be set: %s", path, strerror(errno));
}

static int host_watchdog__open(struct agent *a, struct err *err)
{
	const char *path = a->conf.watchdog;
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), rc;

	if (fd < 0)
		return err_set(err, errno,
			       "watchdog %s cannot be opened: %s; load its driver (softdog has no hardware), and let nobody else feed it",
			       path, strerror(errno));
	rc = host_watchdog__set(a, fd, err);
	/* The note first: whoever finds an armed device must know that it is to be fed. */
	if (rc == 0)
		rc = atomic_file_write(ARMED_NOTE, path, strlen(path), 0600, err);
	if (rc < 0) {
		(void)!write(fd, "V", 1);
		close(fd);
		return rc;
	}
	a->watchdog.fd = fd;
	log_notice("watchdog %s guards this host: %u s without food reset it", path, a->conf.watchdog_timeout_s);
	return 0;
}

static void host_watchdog__lost(struct agent *a)
{
	log_error("watchdog %s cannot be fed: %s; it is opened again", a->conf.watchdog, strerror(errno));
	close(a->watchdog.fd);
	a->watchdog.fd = -1;
}

void host_watchdog_update(struct agent *a)
{
	struct host_watchdog *w = &a->watchdog;
	bool starve = a->fenced && !(a->goals != NULL && a->goals->disarmed);
	uint64_t now = agent_now_ms(a);
	struct err err;

	if (a->conf.watchdog[0] == '\0' || a->stopping)
		return;
	w->wanted |= a->selffence.ever_quorate;
	if (starve || !w->wanted || (w->at_ms != 0 && now - w->at_ms < (w->fd >= 0 ? SELFFENCE_FEED_MS : OPEN_AGAIN_MS)))
		return;
	w->at_ms = now;
	if (w->fd < 0 && host_watchdog__open(a, &err) < 0) {
		if (!w->trouble_told)
			log_error("this host is not guarded: %s", err.text);
		w->trouble_told = true;
		return;
	}
	w->trouble_told = false;
	/* Full is fed: what stands for a device in a test may not read for a while. */
	if (write(w->fd, "f", 1) < 0 && errno != EAGAIN && errno != EINTR)
		host_watchdog__lost(a);
}

const char *host_watchdog_guard(const struct agent *a)
{
	return a->watchdog.fd >= 0 ? a->conf.watchdog : "";
}

void host_watchdog_leave(struct agent *a)
{
	if (a->watchdog.fd < 0)
		return;
	for (const struct domain *d = a->domains; d != NULL; d = d->next)
		if (d->ha && d->actual != ACTUAL_ABSENT) {
			log_notice("watchdog %s stays armed: HA domains are here, the next agent must take it up", a->conf.watchdog);
			close(a->watchdog.fd);
			a->watchdog.fd = -1;
			return;
		}
	/* The magic close (linux/Documentation/watchdog/watchdog-api.rst); a device without it stays armed, and so does the note. */
	if (write(a->watchdog.fd, "V", 1) == 1)
		unlink(ARMED_NOTE);
	close(a->watchdog.fd);
	a->watchdog.fd = -1;
}

#include "agent/daemon/domain_start.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/domain_end.h"
#include "agent/daemon/domain_note.h"
#include "agent/daemon/domain_run.h"
#include "agent/daemon/host_info.h"
#include "agent/daemon/migration_host.h"
#include "hypervisor/qemu_args.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/paths.h"
#include "proto/pb.h"

#define START_RETRY_MS 30000
#define START_PAUSE_MS 500
#define START_PAUSE_MAX_MS 5000

bool domain_start_may_pass(int rc)
{
	switch (-rc) {
	case EAGAIN:
	case EBUSY:
	case EIO:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ECONNREFUSED:
	case ECONNRESET:
	case ENOTCONN:
		return true;
	default:
		return false;
	}
}

static void domain_start__failed(struct domain *d, int rc, const struct err *err)
{
	uint64_t now = agent_now_ms(d->agent), pause = START_PAUSE_MS << (d->tries < 4 ? d->tries : 4);

	if (d->actual == ACTUAL_STOPPING)
		return;
	if (d->copy) {
		migration_host_reserved(d, rc, err);
		domain_end_begin(d, END_GONE, err->text);
		return;
	}
	if (!domain_start_may_pass(rc) || now >= d->retry_until_ms) {
		domain_end_begin(d, END_FAILED, err->text);
		return;
	}
	d->tries++;
	d->not_before_ms = now + (pause < START_PAUSE_MAX_MS ? pause : START_PAUSE_MAX_MS);
	domain_end_begin(d, END_RETRY, err->text);
}

static int domain_start__check_file(const struct domain *d, const char *what, const char *path, int mode,
				    struct err *err)
{
	if (path == NULL || path[0] == '\0' || access(path, mode) == 0)
		return 0;
	return err_set(err, errno,
		       "domain '%s': %s '%s' on host '%s': %s; it must be there on every host that may run the domain",
		       d->name, what, path, d->agent->conf.name, strerror(errno));
}

/* What QEMU would only complain of in its log. */
static int domain_start__check_files(const struct domain *d, struct err *err)
{
	int rc = domain_start__check_file(d, "kernel", d->spec->kernel, R_OK, err);

	if (rc == 0)
		rc = domain_start__check_file(d, "ramdisk", d->spec->ramdisk, R_OK, err);
	for (size_t i = 0; rc == 0 && i < d->spec->n_disks; i++) {
		const Gantry__Disk *disk = d->spec->disks[i];
		if (disk->pool[0] == '\0' && !disk->empty && disk->path[0] == '/')
			rc = domain_start__check_file(d, "disk", disk->path,
						      disk->readonly || disk->cdrom ? R_OK : R_OK | W_OK, err);
	}
	return rc;
}

static int domain_start__taps(struct domain *d, struct err *err)
{
	const struct hostconf *conf = &d->agent->conf;

	d->taps = mem_alloc((d->spec->n_nics + 1) * sizeof(char *));
	for (size_t i = 0; i < d->spec->n_nics; i++) {
		const Gantry__Nic *nic = d->spec->nics[i];
		const char *bridge = nic->bridge[0] != '\0' ? nic->bridge : conf->bridge;
		_cleanup_free_ char *name =
		    nic->ifname[0] != '\0' ? str_dup(nic->ifname) : tap_name(d->uuid, (unsigned)i);
		int rc = bridge_ensure(bridge, strcmp(bridge, conf->bridge) == 0 ? conf->uplink : NULL, err);
		if (rc == 0)
			rc = tap_create(name, bridge, nic->mtu, err);
		if (rc < 0)
			return err_prefix(err, rc, "domain '%s'", d->name);
		d->taps[i] = TAKE_PTR(name);
	}
	return 0;
}

static void domain_start__free_uris(char **uris, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(uris[i]);
	free(uris);
}

static int domain_start__args(struct domain *d, const char *accel, const char *run_dir, char ***ret, struct err *err)
{
	size_t n_disks = d->spec->n_disks, n_nics = d->spec->n_nics;
	char **uris = mem_alloc((n_disks + 1) * sizeof(*uris));
	struct qemu_args_disk *disks = mem_alloc((n_disks + 1) * sizeof(*disks));
	struct qemu_args_nic *nics = mem_alloc((n_nics + 1) * sizeof(*nics));
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < n_disks; i++) {
		const Gantry__Disk *disk = d->spec->disks[i];
		if (disk->pool[0] != '\0' && !disk->empty)
			rc = storage_disk_uri(d->agent->storage, disk, &uris[i], err);
		else
			uris[i] = str_dup(disk->path);
		disks[i].uri = uris[i];
	}
	for (size_t i = 0; i < n_nics; i++)
		nics[i].ifname = d->taps[i];
	if (rc == 0)
		rc = qemu_args_build(d->spec,
				     &(struct qemu_args_host){
					 .binary = d->agent->conf.qemu_binary,
					 .accel = accel,
					 .qemu_version = d->agent->accel.qemu_version,
					 .run_dir = run_dir,
					 .log_dir = PATH_LOG,
					 .disks = disks,
					 .nics = nics,
					 .incoming = d->copy,
				     },
				     ret, err);
	domain_start__free_uris(uris, n_disks);
	free(disks);
	free(nics);
	return rc < 0 ? err_prefix(err, rc, "domain '%s'", d->name) : 0;
}

/* Everything is reachable and ours: make the process. */
static int domain_start__launch(struct domain *d, struct err *err)
{
	_cleanup_free_ char *run_dir = agent_run_dir(d->uuid), *log_path = agent_log_path(d->name);
	const char *accel;
	char **argv = NULL;
	int rc = agent_accel_for(d->agent, d->spec, &accel, err);

	if (rc == 0)
		rc = domain_start__taps(d, err);
	if (rc == 0)
		rc = domain_note_make_dir(d->uuid, err);
	if (rc == 0)
		rc = domain_note_write(d, d->copy ? NOTE_INCOMING : NOTE_STARTING, err);
	if (rc == 0)
		rc = path_make_dirs(PATH_LOG, 0755, err);
	if (rc == 0)
		rc = domain_start__args(d, accel, run_dir, &argv, err);
	if (rc == 0)
		rc = qemu_process_start(d->agent->loop, argv, run_dir, log_path, &domain_run_callbacks, d, &d->qemu,
					err);
	strv_free(argv);
	return rc;
}

static void domain_start__leased(void *data, int rc, const struct err *err)
{
	struct domain *d = data;
	struct err local;

	d->pending--;
	domain_start_leases_done(d, rc);
	if (d->actual == ACTUAL_STOPPING) {
		agent_wake(d->agent);
		return;
	}
	if (rc == 0) {
		rc = domain_start__launch(d, &local);
		err = &local;
	}
	if (rc < 0)
		domain_start__failed(d, rc, err);
}

static void domain_start__checked(void *data, int rc, const struct err *err)
{
	struct domain *d = data;
	struct err local;

	d->pending--;
	if (d->actual == ACTUAL_STOPPING) {
		agent_wake(d->agent);
		return;
	}
	if (rc == 0) {
		rc = d->copy ? domain_start__launch(d, &local) : domain_start_leases(d, domain_start__leased, &local);
		err = &local;
	}
	if (rc < 0)
		domain_start__failed(d, rc, err);
}

int domain_start_leases(struct domain *d, storage_cb cb, struct err *err)
{
	const Gantry__DomainGoal *goal = agent_goal(d->agent, d->uuid);
	struct storage_lease_request rq = {.spec = d->spec, .generation = d->generation};
	int rc;

	if (goal != NULL && goal->generation == d->generation) {
		rq.break_host = goal->lease_from;
		rq.break_generation = goal->lease_from_generation;
		rq.break_proof = goal->lease_proof;
	}
	d->leases_asked = true;
	d->pending++;
	rc = storage_leases_acquire(d->agent->storage, &rq, cb, d, &d->leases_new, err);
	if (rc < 0) {
		d->pending--;
		domain_start_leases_done(d, rc);
		err_prefix(err, rc, "domain '%s'", d->name);
	}
	return rc;
}

static void domain_start__lease_lost(void *data, int rc, const struct err *err)
{
	struct domain *d = data;

	/* Paused, and given to the destination: what happens next is the log's decision. */
	if (d->leases_handed)
		return;
	if (rc == -ESTALE)
		domain_end_begin(d, END_CRASHED, err->text);
	else
		log_warning("domain %s: %s", d->name, err->text);
}

void domain_start_leases_done(struct domain *d, int rc)
{
	d->leases_asked = false;
	if (rc < 0) {
		d->leases_new = NULL;
		return;
	}
	d->leases = TAKE_PTR(d->leases_new);
	d->leases_handed = false;
	if (d->leases != NULL)
		storage_leases_on_lost(d->leases, domain_start__lease_lost, d);
}

/* The common beginning: d->spec and what it is for are set. */
static void domain_start__begin(struct domain *d)
{
	struct err err;
	int rc = domain_start__check_files(d, &err);

	d->actual = ACTUAL_STARTING;
	if (rc == 0) {
		d->pending++;
		rc = storage_check_volumes(d->agent->storage, d->spec, domain_start__checked, d, &err);
		if (rc < 0)
			d->pending--;
	}
	if (rc < 0)
		domain_start__failed(d, rc, &err);
}

static void domain_start__set(struct domain *d, const Gantry__DomainSpec *spec, uint64_t generation, bool copy)
{
	if (d->spec != NULL)
		gantry__domain_spec__free_unpacked(d->spec, NULL);
	d->spec = pb_clone(spec);
	agent_set_text(&d->name, spec->name);
	d->generation = generation;
	d->copy = copy;
}

void domain_start(struct domain *d, const Gantry__DomainGoal *goal)
{
	uint64_t now = agent_now_ms(d->agent);
	const char *accel;
	struct err err;

	if (d->pending > 0 || d->not_before_ms > now)
		return;
	if (agent_accel_for(d->agent, goal->spec, &accel, &err) == -EAGAIN) {
		agent_set_text(&d->trouble, err.text);
		return;
	}
	if (d->retry_until_ms == 0 || d->generation != goal->generation) {
		d->retry_until_ms = now + START_RETRY_MS;
		d->tries = 0;
	}
	domain_start__set(d, goal->spec, goal->generation, false);
	domain_run_take_policy(d, goal);
	d->job_id = 0;
	log_notice("domain %s: start of generation %" PRIu64, d->name, d->generation);
	domain_start__begin(d);
}

int domain_start_copy(struct domain *d, const Gantry__MigrationGoal *goal, struct err *err)
{
	uint64_t free_bytes = host_info_memory_free(d->agent);
	const char *accel;
	int rc;

	if (d->actual != ACTUAL_ABSENT || d->pending > 0)
		return err_set(err, EBUSY, "domain '%s': an older QEMU of it is still on host '%s' (%s)",
			       goal->spec->name, d->agent->conf.name, reconcile_state_word(d->actual));
	if (goal->spec->memory_bytes > free_bytes)
		return err_set(err, ENOMEM, "domain '%s' needs %" PRIu64 " MiB, host '%s' has %" PRIu64 " MiB free",
			       goal->spec->name, goal->spec->memory_bytes >> 20, d->agent->conf.name, free_bytes >> 20);
	rc = agent_accel_for(d->agent, goal->spec, &accel, err);
	if (rc < 0)
		return rc;
	domain_start__set(d, goal->spec, goal->job->generation, true);
	d->job_id = goal->job->id;
	log_notice("domain %s: room is made for task %" PRIu64 " (generation %" PRIu64 ")", d->name, d->job_id,
		   d->generation);
	domain_start__begin(d);
	return 0;
}

/* The leases are ours, so whoever holds QEMU's lock is an older QEMU that is ending, or the server's memory of one on a
 * host that died (an NFS server keeps such locks for a while). QEMU tells it by its words alone. */
bool domain_start_image_busy(struct domain *d, const char *log_tail)
{
	struct err err;

	if (d->copy || d->running_since_ms != 0 || d->actual != ACTUAL_STARTING || log_tail == NULL ||
	    strstr(log_tail, "Failed to get") == NULL || strstr(log_tail, "lock") == NULL)
		return false;
	err_set(&err, EBUSY, "domain '%s': another process still holds an image of it: %s", d->name, log_tail);
	domain_start__failed(d, -EBUSY, &err);
	return true;
}

void domain_start_never_ready(struct domain *d, const struct err *err)
{
	domain_start__failed(d, -ENOTCONN, err);
}

void domain_start_ready(struct domain *d)
{
	if (d->actual != ACTUAL_STARTING)
		return;
	if (d->copy) {
		d->actual = ACTUAL_INCOMING;
		migration_host_reserved(d, 0, NULL);
		agent_wake(d->agent);
		return;
	}
	domain_run_first(d);
}

/* Storage on the loop: every function runs its blocking part in libuv's thread pool and calls back exactly once.
 * One operation at a time per pool handle; a stalled pool blocks at most its own one thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "lib/err.h"
#include "proto/agent.pb-c.h"
#include "proto/model.pb-c.h"

struct storage;             /* all pools this host knows */
typedef void (*storage_cb)(void *data, int rc, const struct err *err);

int storage_new(uv_loop_t *loop, const char *host, struct storage **ret);
void storage_free(struct storage *st);          /* running operations are waited for */
/* The pools of the goals; unchanged ones stay open. */
void storage_set_pools(struct storage *st, Gantry__Pool *const *pools, size_t n);
const Gantry__Pool *storage_find_pool(const struct storage *st, const char *name);
/* Checks of all pools, repeated every 10 s; the newest verdicts (borrowed, valid until the next turn of the loop). */
size_t storage_pool_reports(struct storage *st, Gantry__PoolReport *const **ret);

/* The leases of one domain's writable volumes, all or none: a failure releases those it had taken. */
struct storage_lease_set;
struct storage_lease_request {
	const Gantry__DomainSpec *spec;
	uint64_t generation;
	const char *break_host;          /* empty or NULL: none */
	uint64_t break_generation;
	const char *break_proof;
};
/* *ret is usable (renewed every LEASE_RENEW_MS by itself) once cb was called with 0; on failure it is freed by the callee. */
int storage_leases_acquire(struct storage *st, const struct storage_lease_request *rq, storage_cb cb, void *data, struct storage_lease_set **ret, struct err *err);
/* Called when a renewal finds a newer generation (-ESTALE): the domain must be killed at once; or when renewal has failed for long (-ETIMEDOUT; for information). */
void storage_leases_on_lost(struct storage_lease_set *ls, storage_cb cb, void *data);
int storage_leases_hand_over(struct storage_lease_set *ls, const char *next_host, uint64_t next_generation, storage_cb cb, void *data);
int storage_leases_take_back(struct storage_lease_set *ls, storage_cb cb, void *data);
/* Releases (writes "released") and frees. cb may be NULL. */
void storage_leases_release(struct storage_lease_set *ls, storage_cb cb, void *data);
/* Frees without touching the records (the domain now belongs to another generation, or the agent is stopping). */
void storage_leases_drop(struct storage_lease_set *ls);
/* Can this host reach every volume of the spec (exists, readable)? The error names the volume and pool. */
int storage_check_volumes(struct storage *st, const Gantry__DomainSpec *spec, storage_cb cb, void *data, struct err *err);
/* URI for QEMU of disk i; -ENOENT naming pool or volume format. Owner: caller. */
int storage_disk_uri(struct storage *st, const Gantry__Disk *disk, char **ret, struct err *err);
int storage_volume_create(struct storage *st, const Gantry__Volume *volume, storage_cb cb, void *data, struct err *err);
int storage_volume_delete(struct storage *st, const Gantry__Volume *volume, storage_cb cb, void *data, struct err *err);

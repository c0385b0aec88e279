/* The leases of one domain's writable volumes, together: all or none, renewed while they are held. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "storage/lease.h"
#include "storage/storage_internal.h"

#define LOST_AFTER_MS (6 * LEASE_RENEW_MS)   /* renewal has failed for so long: said once, for information */

struct lease_item {
	char *pool, *volume;
	bool taken;
};

struct storage_lease_set {
	struct storage *storage;
	struct lease_item *items;
	size_t n;
	char *host, *uuid, *name;
	uint64_t generation;
	char *break_host, *break_proof;
	uint64_t break_generation;
	uv_timer_t timer;
	bool held, dropped, timer_closed, lost_said;
	uint64_t renewed_ms;
	storage_cb on_lost;
	void *on_lost_data;
	size_t refs;              /* operations under way */
};

/* One thing done with all items, one after the other. */
struct sweep {
	struct storage_lease_set *set;
	storage_work work;
	size_t at;
	char *next_host;
	uint64_t next_generation;
	int rc;
	struct err err;
	void (*done)(struct sweep *sweep);
	storage_cb cb;
	void *data;
};

static void set_free_if_unused(struct storage_lease_set *ls)
{
	if (!ls->dropped || !ls->timer_closed || ls->refs)
		return;
	for (size_t i = 0; i < ls->n; i++) {
		free(ls->items[i].pool);
		free(ls->items[i].volume);
	}
	free(ls->items);
	free(ls->host);
	free(ls->uuid);
	free(ls->name);
	free(ls->break_host);
	free(ls->break_proof);
	free(ls);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct storage_lease_set *ls = handle->data;

	ls->timer_closed = true;
	set_free_if_unused(ls);
}

void storage_leases_drop(struct storage_lease_set *ls)
{
	if (!ls || ls->dropped)
		return;
	ls->dropped = true;
	ls->held = false;
	uv_close((uv_handle_t *)&ls->timer, on_timer_closed);
}

static struct lease_id id_of(const struct storage_lease_set *ls, const struct lease_item *item)
{
	return (struct lease_id){.volume = item->volume, .host = ls->host, .domain_uuid = ls->uuid, .domain_name = ls->name,
				 .generation = ls->generation};
}

/* ---- in the thread pool --------------------------------------------------------- */

static int acquire_work(struct pool_fs *fs, struct storage_op *op)
{
	struct sweep *s = op->data;
	const struct storage_lease_set *ls = s->set;
	struct lease_id id = id_of(ls, &ls->items[s->at]);
	struct lease_break brk = {.host = ls->break_host, .generation = ls->break_generation, .proof = ls->break_proof};

	return lease_acquire(fs, &id, ls->break_host ? &brk : NULL, &op->err);
}

static int hand_over_work(struct pool_fs *fs, struct storage_op *op)
{
	struct sweep *s = op->data;
	struct lease_id id = id_of(s->set, &s->set->items[s->at]);

	return lease_hand_over(fs, &id, s->next_host, s->next_generation, &op->err);
}

static int release_work(struct pool_fs *fs, struct storage_op *op)
{
	struct sweep *s = op->data;
	struct lease_id id = id_of(s->set, &s->set->items[s->at]);

	return lease_release(fs, &id, &op->err);
}

static int renew_work(struct pool_fs *fs, struct storage_op *op)
{
	struct sweep *s = op->data;
	struct lease_id id = id_of(s->set, &s->set->items[s->at]);

	return lease_renew(fs, &id, &op->err);
}

/* ---- the sweep ------------------------------------------------------------------- */

static void sweep_step(struct sweep *s);

static void sweep_end(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;

	s->done(s);
	free(s->next_host);
	free(s);
	ls->refs--;
	set_free_if_unused(ls);
}

static void sweep_after(struct storage_op *op)
{
	struct sweep *s = op->data;
	struct lease_item *item = &s->set->items[s->at];

	if (!op->rc && s->work == acquire_work)
		item->taken = true;
	if (op->rc && !s->rc) {
		s->rc = op->rc;
		s->err = op->err;
	}
	s->at++;
	/* All or none: the first refusal ends an acquisition. What is given up is given up as far as it goes. */
	if (s->rc && s->work == acquire_work)
		s->at = s->set->n;
	sweep_step(s);
}

static void sweep_step(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;

	while (s->at < ls->n) {
		struct storage_op *op;

		if (s->work != acquire_work && !ls->items[s->at].taken) {
			s->at++;
			continue;
		}
		op = storage__op_new(ls->storage, s->work, sweep_after, s);
		if (storage__op_queue(ls->storage, ls->items[s->at].pool, op, &s->err) == 0)
			return;
		storage__op_free(op);
		s->rc = -ENOENT;
		s->at = s->work == acquire_work ? ls->n : s->at + 1;
	}
	sweep_end(s);
}

static void on_begin(uv_timer_t *timer)
{
	struct sweep *s = timer->data;

	uv_close((uv_handle_t *)timer, (uv_close_cb)free);
	sweep_step(s);
}

static struct sweep *sweep_new(struct storage_lease_set *ls, storage_work work, void (*done)(struct sweep *), storage_cb cb, void *data)
{
	struct sweep *s = mem_alloc(sizeof(*s));

	s->set = ls;
	s->work = work;
	s->done = done;
	s->cb = cb;
	s->data = data;
	ls->refs++;
	return s;
}

/* With pools to ask the answer comes from the loop anyway; with none it must not come before we have returned. */
static void sweep_start(struct sweep *s)
{
	uv_timer_t *timer;

	if (s->set->n) {
		sweep_step(s);
		return;
	}
	timer = mem_alloc(sizeof(*timer));
	uv_timer_init(storage__loop(s->set->storage), timer);
	timer->data = s;
	uv_timer_start(timer, on_begin, 0, 0);
}

static void plain_done(struct sweep *s)
{
	if (s->cb)
		s->cb(s->data, s->rc, s->rc ? &s->err : NULL);
}

/* ---- renewal ---------------------------------------------------------------------- */

static void renewed(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;
	uint64_t now = uv_now(storage__loop(ls->storage));
	bool tell = false;

	if (!ls->held)
		return;
	if (!s->rc) {
		ls->renewed_ms = now;
		ls->lost_said = false;
	} else if (s->rc == -ESTALE) {
		ls->held = false;
		tell = true;
	} else if (now - ls->renewed_ms >= LOST_AFTER_MS && !ls->lost_said) {
		ls->lost_said = true;
		s->rc = -ETIMEDOUT;
		tell = true;
	}
	if (tell && ls->on_lost)
		ls->on_lost(ls->on_lost_data, s->rc, &s->err);
}

static void on_renew(uv_timer_t *timer)
{
	struct storage_lease_set *ls = timer->data;

	/* A stalled pool has one renewal of ours waiting, not a row of them. */
	if (ls->held && ls->n && !ls->refs)
		sweep_start(sweep_new(ls, renew_work, renewed, NULL, NULL));
}

void storage_leases_on_lost(struct storage_lease_set *ls, storage_cb cb, void *data)
{
	ls->on_lost = cb;
	ls->on_lost_data = data;
}

/* ---- taking and giving ------------------------------------------------------------- */

static void undone(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;

	storage_leases_drop(ls);
}

static void acquired(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;

	if (!s->rc) {
		ls->held = true;
		ls->renewed_ms = uv_now(storage__loop(ls->storage));
		s->cb(s->data, 0, NULL);
		return;
	}
	sweep_start(sweep_new(ls, release_work, undone, NULL, NULL));
	s->cb(s->data, s->rc, &s->err);
}

static struct storage_lease_set *set_new(struct storage *st, const struct storage_lease_request *rq)
{
	struct storage_lease_set *ls = mem_alloc(sizeof(*ls));

	ls->storage = st;
	ls->host = str_dup(storage__host(st));
	ls->uuid = str_dup(rq->spec->uuid);
	ls->name = str_dup(rq->spec->name);
	ls->generation = rq->generation;
	if (rq->break_host && *rq->break_host) {
		ls->break_host = str_dup(rq->break_host);
		ls->break_proof = str_dup(rq->break_proof ? rq->break_proof : "");
		ls->break_generation = rq->break_generation;
	}
	ls->items = mem_alloc((rq->spec->n_disks + 1) * sizeof(*ls->items));
	for (size_t i = 0; i < rq->spec->n_disks; i++) {
		const Gantry__Disk *disk = rq->spec->disks[i];

		if (!*disk->pool || disk->empty || disk->readonly)
			continue;
		ls->items[ls->n].pool = str_dup(disk->pool);
		ls->items[ls->n++].volume = str_dup(disk->volume);
	}
	uv_timer_init(storage__loop(st), &ls->timer);
	ls->timer.data = ls;
	uv_timer_start(&ls->timer, on_renew, LEASE_RENEW_MS, LEASE_RENEW_MS);
	return ls;
}

int storage_leases_acquire(struct storage *st, const struct storage_lease_request *rq, storage_cb cb, void *data, struct storage_lease_set **ret, struct err *err)
{
	struct storage_lease_set *ls;

	for (size_t i = 0; i < rq->spec->n_disks; i++) {
		const Gantry__Disk *disk = rq->spec->disks[i];

		if (*disk->pool && !disk->empty && !storage_find_pool(st, disk->pool))
			return err_set(err, ENOENT, "disk %s: pool '%s' is not known on this host: see 'clusterctl pool list'", disk->vdev, disk->pool);
	}
	ls = set_new(st, rq);
	*ret = ls;
	sweep_start(sweep_new(ls, acquire_work, acquired, cb, data));
	return 0;
}

int storage_leases_hand_over(struct storage_lease_set *ls, const char *next_host, uint64_t next_generation, storage_cb cb, void *data)
{
	struct sweep *s = sweep_new(ls, hand_over_work, plain_done, cb, data);

	ls->held = false;
	s->next_host = str_dup(next_host);
	s->next_generation = next_generation;
	sweep_start(s);
	return 0;
}

static void taken_back(struct sweep *s)
{
	if (!s->rc) {
		s->set->held = true;
		s->set->renewed_ms = uv_now(storage__loop(s->set->storage));
	}
	plain_done(s);
}

int storage_leases_take_back(struct storage_lease_set *ls, storage_cb cb, void *data)
{
	sweep_start(sweep_new(ls, acquire_work, taken_back, cb, data));
	return 0;
}

static void released(struct sweep *s)
{
	struct storage_lease_set *ls = s->set;

	plain_done(s);
	storage_leases_drop(ls);
}

void storage_leases_release(struct storage_lease_set *ls, storage_cb cb, void *data)
{
	if (!ls)
		return;
	ls->held = false;
	sweep_start(sweep_new(ls, release_work, released, cb, data));
}

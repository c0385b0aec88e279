/* The lease protocol, over the few file operations of a pool. Mutual exclusion by "say, then look" (as in Lamport's
 * bakery): a claim is made durable first, then everyone else's records are read. Of two who want the same volume at least the
 * later one to look sees the other's claim, and whoever sees a claim that he may not pass withdraws. */
#include "storage/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/buf.h"
#include "storage/lease_record.h"

#define PATH_CHARS (sizeof(LEASE_FOLDER) + 1 + LIMIT_NAME_CHARS + 1 + LEASE_FILE_CHARS + 1)

struct records {
	struct lease_record *r;
	size_t n;
};

static uint64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void folder_of(const char *volume, char out[PATH_CHARS])
{
	snprintf(out, PATH_CHARS, "%s/%.*s", LEASE_FOLDER, LIMIT_NAME_CHARS, volume);
}

static void path_of(const char *volume, const struct lease_record *r, char out[PATH_CHARS])
{
	char name[LEASE_FILE_CHARS + 1];

	lease_record_name(r, name);
	snprintf(out, PATH_CHARS, "%s/%.*s/%s", LEASE_FOLDER, LIMIT_NAME_CHARS, volume, name);
}

static int make_folder(struct pool_fs *fs, const char *volume, struct err *err)
{
	char folder[PATH_CHARS];
	int rc = pool_fs_mkdir(fs, LEASE_FOLDER, err);

	if (rc && rc != -EEXIST)
		return rc;
	folder_of(volume, folder);
	rc = pool_fs_mkdir(fs, folder, err);
	return rc == -EEXIST ? 0 : rc;
}

/* ---- reading --------------------------------------------------------------------- */

static int by_age(const void *a, const void *b)
{
	const struct lease_record *x = a, *y = b;

	if (x->owner.generation != y->owner.generation)
		return x->owner.generation < y->owner.generation ? -1 : 1;
	return x->incarnation < y->incarnation ? -1 : x->incarnation > y->incarnation;
}

/* A record that vanishes between the listing and the reading was removed by somebody entitled to: as if never seen. */
static int read_record(struct pool_fs *fs, const char *volume, struct lease_record *r, struct err *err)
{
	char path[PATH_CHARS];
	struct buf content = {0};
	int rc;

	path_of(volume, r, path);
	rc = pool_fs_read(fs, path, LEASE_RECORD_BYTES, &content, err);
	if (!rc)
		lease_record_parse(content.data, content.len, r);
	buf_free(&content);
	return rc;
}

/* All records of a volume, oldest first. None is no error. */
static int read_all(struct pool_fs *fs, const char *volume, struct records *ret, struct err *err)
{
	char folder[PATH_CHARS], **names = NULL;
	struct records all = {0};
	size_t n = 0;
	int rc;

	folder_of(volume, folder);
	rc = pool_fs_list(fs, folder, &names, &n, err);
	if (rc == -ENOENT) {
		*ret = all;
		return 0;
	}
	if (rc)
		return rc;
	if (n > LIMIT_LEASE_RECORDS)
		rc = err_set(err, E2BIG, "volume '%s' has %zu lease records: somebody retries without end", volume, n);
	all.r = mem_alloc((n + 1) * sizeof(*all.r));
	for (size_t i = 0; i < n && !rc; i++) {
		if (!lease_record_parse_name(names[i], &all.r[all.n]))
			continue;
		rc = read_record(fs, volume, &all.r[all.n], err);
		if (!rc)
			all.n++;
		else if (rc == -ENOENT)
			rc = 0;
	}
	pool_fs_free_list(names, n);
	if (rc) {
		free(all.r);
		return rc;
	}
	qsort(all.r, all.n, sizeof(*all.r), by_age);
	*ret = all;
	return 0;
}

static bool is_mine(const struct lease_record *r, const struct lease_id *id)
{
	return r->owner.generation == id->generation && !strcmp(r->owner.host, id->host) && !strcmp(r->uuid, id->domain_uuid);
}

/* ---- writing --------------------------------------------------------------------- */

static int overwrite(struct pool_fs *fs, const char *volume, struct lease_record *r, enum lease_state state, struct err *err)
{
	char path[PATH_CHARS], content[LEASE_RECORD_BYTES];

	r->state = state;
	r->time_ms = wall_ms();
	path_of(volume, r, path);
	lease_record_format(r, content);
	return pool_fs_overwrite(fs, path, content, sizeof(content), err);
}

static int create_claim(struct pool_fs *fs, const char *volume, struct lease_record *r, struct err *err)
{
	char path[PATH_CHARS], content[LEASE_RECORD_BYTES];
	int rc;

	r->state = LEASE_CLAIM;
	r->time_ms = wall_ms();
	for (int tries = 0; tries < 8; tries++, r->incarnation++) {
		path_of(volume, r, path);
		lease_record_format(r, content);
		rc = pool_fs_create(fs, path, content, sizeof(content), err);
		if (rc != -EEXIST)
			return rc;
	}
	return rc;
}

/* A claim that came to nothing. If it cannot be marked it stays a claim, which only makes others more careful. */
static void withdraw(struct pool_fs *fs, const char *volume, struct lease_record *r)
{
	char path[PATH_CHARS];

	if (overwrite(fs, volume, r, LEASE_WITHDRAWN, NULL))
		return;
	path_of(volume, r, path);
	pool_fs_remove(fs, path, NULL);
}

/* What no longer counts, once the lease is held. A failure is of no account: such records are passed over. */
static void tidy(struct pool_fs *fs, const struct lease_id *id, const struct records *all, const struct lease_record *mine)
{
	char path[PATH_CHARS];

	for (size_t i = 0; i < all->n; i++) {
		const struct lease_record *r = &all->r[i];

		if (r->owner.generation > mine->owner.generation ||
		    (r->owner.generation == mine->owner.generation && r->incarnation >= mine->incarnation))
			continue;
		path_of(id->volume, r, path);
		pool_fs_remove(fs, path, NULL);
	}
}

/* ---- taking ---------------------------------------------------------------------- */

static const char *age_text(const struct lease_record *r, char buf[48])
{
	uint64_t now = wall_ms();

	if (!r->readable || !r->time_ms || r->time_ms > now)
		snprintf(buf, 48, "at an unknown time");
	else
		snprintf(buf, 48, "%" PRIu64 " s ago", (now - r->time_ms) / 1000);
	return buf;
}

static int held_by(const struct lease_id *id, const struct lease_record *r, struct err *err)
{
	char age[48];

	return err_set(err, EBUSY, "volume '%s' is %s by %s for domain '%s' (generation %" PRIu64 "), renewed %s: it is not written by two",
		       id->volume, r->state == LEASE_CLAIM ? "claimed" : "held", r->owner.host,
		       r->readable && r->domain_name[0] ? r->domain_name : r->uuid, r->owner.generation, age_text(r, age));
}

static int stale(const struct lease_id *id, const struct lease_record *r, struct err *err)
{
	return err_set(err, ESTALE, "volume '%s': generation %" PRIu64 " of %s is over, %s has generation %" PRIu64, id->volume, id->generation,
		       id->host, r->owner.host, r->owner.generation);
}

/* May this record be passed? Every generation up to the broken one was proven to be over before the next was given out. */
static bool passable(const struct lease_record *r, const struct lease_id *id, const struct lease_break *brk)
{
	if (!strcmp(r->uuid, id->domain_uuid) && brk && r->owner.generation <= brk->generation && r->owner.generation < id->generation)
		return true;
	if (!r->readable)
		return false;
	if (r->state == LEASE_RELEASED || r->state == LEASE_WITHDRAWN)
		return true;
	return r->state == LEASE_HANDED && !strcmp(r->next.host, id->host) && r->next.generation == id->generation;
}

/* Looks at everyone else. `mine`: the claim that was just made (NULL before it). Own older records of this generation are our own past. */
static int look(const struct records *all, const struct lease_id *id, const struct lease_break *brk, struct err *err)
{
	for (size_t i = 0; i < all->n; i++) {
		const struct lease_record *r = &all->r[i];

		if (is_mine(r, id) || (r->readable && r->state == LEASE_WITHDRAWN))
			continue;
		/* Generations are a domain's own: those of another domain on this volume are not compared. */
		if (!strcmp(r->uuid, id->domain_uuid) && r->owner.generation > id->generation)
			return stale(id, r, err);
		if (!passable(r, id, brk))
			return held_by(id, r, err);
	}
	return 0;
}

static int check_id(const struct lease_id *id, struct err *err)
{
	int rc = lease_record_check_host(id->host, err);

	if (!rc)
		rc = lease_record_check_uuid(id->domain_uuid, err);
	if (!rc && !id->generation)
		rc = err_set(err, EINVAL, "volume '%s': a lease needs a generation", id->volume);
	return rc;
}

static void mine_new(const struct lease_id *id, const struct lease_break *brk, const struct records *all, struct lease_record *r)
{
	*r = (struct lease_record){.readable = true, .owner.generation = id->generation, .incarnation = wall_ms()};
	snprintf(r->owner.host, sizeof(r->owner.host), "%s", id->host);
	snprintf(r->uuid, sizeof(r->uuid), "%s", id->domain_uuid);
	snprintf(r->domain_name, sizeof(r->domain_name), "%s", id->domain_name ? id->domain_name : "");
	for (size_t i = 0; i < all->n; i++)
		if (all->r[i].incarnation >= r->incarnation)
			r->incarnation = all->r[i].incarnation + 1;
	if (!brk)
		return;
	snprintf(r->breaks.host, sizeof(r->breaks.host), "%s", brk->host);
	r->breaks.generation = brk->generation;
	snprintf(r->proof, sizeof(r->proof), "%s", brk->proof ? brk->proof : "");
}

int lease_acquire(struct pool_fs *fs, const struct lease_id *id, const struct lease_break *brk, struct err *err)
{
	struct records all = {0};
	struct lease_record mine;
	int rc = check_id(id, err);

	if (!rc)
		rc = make_folder(fs, id->volume, err);
	/* A first look spares the claim where it is hopeless. */
	if (!rc)
		rc = read_all(fs, id->volume, &all, err);
	if (!rc)
		rc = look(&all, id, brk, err);
	if (rc)
		goto out;
	mine_new(id, brk, &all, &mine);
	rc = create_claim(fs, id->volume, &mine, err);
	if (rc)
		goto out;
	free(all.r);
	all = (struct records){0};
	rc = read_all(fs, id->volume, &all, err);
	if (!rc)
		rc = look(&all, id, brk, err);
	if (!rc)
		rc = overwrite(fs, id->volume, &mine, LEASE_HELD, err);
	if (rc)
		withdraw(fs, id->volume, &mine);
	else
		tidy(fs, id, &all, &mine);
out:
	free(all.r);
	return rc;
}

/* ---- while it is held -------------------------------------------------------------- */

/* The newest own record that is held or handed over; -ESTALE if a newer generation holds it, or ours is gone. */
static int find_mine(struct pool_fs *fs, const struct lease_id *id, struct lease_record *ret, struct err *err)
{
	struct records all = {0};
	const struct lease_record *mine = NULL, *newer = NULL;
	int rc = check_id(id, err);

	if (!rc)
		rc = read_all(fs, id->volume, &all, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < all.n; i++) {
		const struct lease_record *r = &all.r[i];

		if (is_mine(r, id) && r->readable && (r->state == LEASE_HELD || r->state == LEASE_HANDED || r->state == LEASE_RELEASED))
			mine = r;
		/* A mere claim may still be withdrawn. */
		if (!strcmp(r->uuid, id->domain_uuid) && r->owner.generation > id->generation && r->readable && r->state != LEASE_CLAIM &&
		    r->state != LEASE_WITHDRAWN)
			newer = r;
	}
	if (newer)
		rc = stale(id, newer, err);
	else if (!mine)
		rc = err_set(err, ESTALE, "volume '%s': the lease of %s (generation %" PRIu64 ") is gone from the pool", id->volume, id->host,
			     id->generation);
	else
		*ret = *mine;
	free(all.r);
	return rc;
}

int lease_renew(struct pool_fs *fs, const struct lease_id *id, struct err *err)
{
	struct lease_record mine;
	int rc = find_mine(fs, id, &mine, err);

	if (rc)
		return rc;
	if (mine.state != LEASE_HELD)
		return err_set(err, ESTALE, "volume '%s': the lease was %s", id->volume, lease_state_word(mine.state));
	mine.renewals++;
	return overwrite(fs, id->volume, &mine, LEASE_HELD, err);
}

int lease_release(struct pool_fs *fs, const struct lease_id *id, struct err *err)
{
	struct lease_record mine;
	int rc = find_mine(fs, id, &mine, err);

	/* Gone, or somebody newer has it: nothing of ours is left to release. */
	if (rc == -ESTALE)
		return 0;
	return rc ? rc : overwrite(fs, id->volume, &mine, LEASE_RELEASED, err);
}

int lease_hand_over(struct pool_fs *fs, const struct lease_id *id, const char *next_host, uint64_t next_generation, struct err *err)
{
	struct lease_record mine;
	int rc = lease_record_check_host(next_host, err);

	if (!rc)
		rc = find_mine(fs, id, &mine, err);
	if (rc)
		return rc;
	if (mine.state != LEASE_HELD && mine.state != LEASE_HANDED)
		return err_set(err, ESTALE, "volume '%s': the lease was %s", id->volume, lease_state_word(mine.state));
	snprintf(mine.next.host, sizeof(mine.next.host), "%s", next_host);
	mine.next.generation = next_generation;
	return overwrite(fs, id->volume, &mine, LEASE_HANDED, err);
}

/* ---- for people, and for the end of a volume ------------------------------------------ */

int lease_describe(struct pool_fs *fs, const char *volume, struct buf *ret, struct err *err)
{
	const struct lease_record *holder = NULL;
	struct records all = {0};
	char age[48];
	int rc = read_all(fs, volume, &all, err);

	if (rc)
		return rc;
	for (size_t i = 0; i < all.n; i++)
		if (!all.r[i].readable || (all.r[i].state != LEASE_RELEASED && all.r[i].state != LEASE_WITHDRAWN))
			holder = &all.r[i];
	if (holder)
		buf_printf(ret, "%s by %s for domain %s (generation %" PRIu64 "), renewed %s", lease_state_word(holder->state), holder->owner.host,
			   holder->readable && holder->domain_name[0] ? holder->domain_name : holder->uuid, holder->owner.generation,
			   age_text(holder, age));
	else
		buf_printf(ret, "free");
	free(all.r);
	return 0;
}

int lease_remove_all(struct pool_fs *fs, const char *volume, struct err *err)
{
	struct lease_id nobody = {.volume = volume, .host = "", .domain_uuid = ""};
	struct records all = {0};
	char path[PATH_CHARS];
	int rc = read_all(fs, volume, &all, err);

	for (size_t i = 0; !rc && i < all.n; i++)
		if (!all.r[i].readable || (all.r[i].state != LEASE_RELEASED && all.r[i].state != LEASE_WITHDRAWN))
			rc = held_by(&nobody, &all.r[i], err);
	for (size_t i = 0; !rc && i < all.n; i++) {
		path_of(volume, &all.r[i], path);
		rc = pool_fs_remove(fs, path, err);
		if (rc == -ENOENT)
			rc = 0;
	}
	free(all.r);
	if (rc)
		return rc;
	folder_of(volume, path);
	rc = pool_fs_rmdir(fs, path, err);
	return rc == -ENOENT ? 0 : rc;
}

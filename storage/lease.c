/* The lease protocol, over the few file operations of a pool. Mutual exclusion by "say, then look" (Dekker, Lamport's
 * bakery): of two who want the same volume at least the later one to look sees the other's claim, and whoever sees a claim
 * that he may not pass withdraws. docs/storage.md says why each rule is there. */
#include "storage/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/mutant.h"
#include "lib/buf.h"
#include "storage/lease_record.h"

#define PATH_CHARS (sizeof(LEASE_FOLDER) + 1 + LIMIT_NAME_CHARS + 1 + LEASE_FILE_CHARS + 1)
#define CLAIM_TRIES 4
#define TIDY_ABOVE 8 /* records; fewer are left to the first renewal, off the way of a migration's downtime */

struct records {
	struct lease_record *r; /* the newest generation first, within it the newest incarnation */
	size_t n;
};

static uint64_t wall_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void folder_of(const char *volume, char ret[PATH_CHARS])
{
	snprintf(ret, PATH_CHARS, "%s/%.*s", LEASE_FOLDER, LIMIT_NAME_CHARS, volume);
}

static void path_of(const char *volume, const struct lease_record *r, char ret[PATH_CHARS])
{
	char name[LEASE_FILE_CHARS + 1];

	lease_record_name(r, name);
	snprintf(ret, PATH_CHARS, "%s/%.*s/%s", LEASE_FOLDER, LIMIT_NAME_CHARS, volume, name);
}

static int check_volume(const char *volume, struct err *err)
{
	if (*volume && *volume != '.' && strlen(volume) <= LIMIT_NAME_CHARS && !strchr(volume, '/'))
		return 0;
	return err_set(err, EINVAL, "'%.80s' is no name of a volume", volume);
}

static int check_id(const struct lease_id *id, struct err *err)
{
	int rc = check_volume(id->volume, err);

	if (rc == 0)
		rc = lease_record_check_host(id->host, err);
	if (rc == 0)
		rc = lease_record_check_uuid(id->domain_uuid, err);
	if (rc == 0 && id->generation == 0)
		rc = err_set(err, EINVAL, "volume '%s': a lease needs a generation", id->volume);
	return rc;
}

/* ---- reading ---- */

static int by_age(const void *a, const void *b)
{
	const struct lease_record *x = a, *y = b;

	if (x->owner.generation != y->owner.generation)
		return x->owner.generation > y->owner.generation ? -1 : 1;
	return x->incarnation > y->incarnation ? -1 : x->incarnation < y->incarnation;
}

/* -ENOENT: it vanished after the listing, removed by somebody who was entitled to. */
static int read_record(struct pool_fs *fs, const char *volume, struct lease_record *r, struct err *err)
{
	char path[PATH_CHARS];
	struct buf content = {0};
	int rc;

	path_of(volume, r, path);
	rc = pool_fs_peek(fs, path, LEASE_RECORD_BYTES + 1, &content, err);
	if (rc == 0)
		lease_record_parse(content.data, content.len, r);
	buf_free(&content);
	return rc;
}

/* All records of a volume. None, and no folder, is no error. */
static int read_all(struct pool_fs *fs, const char *volume, struct records *ret, struct err *err)
{
	char folder[PATH_CHARS], **names = NULL;
	struct records all = {0};
	size_t n = 0;
	int rc;

	folder_of(volume, folder);
	rc = pool_fs_list(fs, folder, &names, &n, err);
	if (rc == -ENOENT)
		rc = 0;
	else if (rc == 0 && n > LIMIT_LEASE_RECORDS)
		rc = err_set(err, E2BIG, "volume '%s' has %zu lease records, at most %d are read; remove those in %s of the pool "
			     "that belong to no running domain", volume, n, LIMIT_LEASE_RECORDS, folder);
	all.r = mem_alloc((n + 1) * sizeof(*all.r));
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (!lease_record_parse_name(names[i], &all.r[all.n]))
			continue;
		rc = read_record(fs, volume, &all.r[all.n], err);
		if (rc == 0)
			all.n++;
		else if (rc == -ENOENT)
			rc = 0;
	}
	pool_fs_free_list(names, n);
	if (rc < 0) {
		free(all.r);
		return rc;
	}
	qsort(all.r, all.n, sizeof(*all.r), by_age);
	*ret = all;
	return 0;
}

/* ---- what records mean ---- */

static bool same_domain(const struct lease_record *r, const char *uuid)
{
	return strcmp(r->uuid, uuid) == 0;
}

static bool is_mine(const struct lease_record *r, const struct lease_id *id)
{
	return r->owner.generation == id->generation && strcmp(r->owner.host, id->host) == 0 &&
	       same_domain(r, id->domain_uuid);
}

/* It was held once: when it was taken, all older ones of its domain were settled. */
static bool was_held(const struct lease_record *r)
{
	return r->readable && (r->state == LEASE_HELD || r->state == LEASE_HANDED || r->state == LEASE_RELEASED);
}

static bool is_withdrawn(const struct lease_record *r)
{
	return r->readable && r->state == LEASE_WITHDRAWN;
}

/* A newer record of the same domain has settled this one. It cannot come back: a taking sees the newer record. */
static bool is_superseded(const struct records *all, size_t at)
{
	const struct lease_record *r = &all->r[at];

	for (size_t i = 0; i < at; i++) {
		const struct lease_record *newer = &all->r[i];

		if (was_held(newer) && same_domain(newer, r->uuid) &&
		    (newer->owner.generation > r->owner.generation || strcmp(newer->owner.host, r->owner.host) == 0))
			return true;
	}
	return false;
}

static bool is_live(const struct records *all, size_t at)
{
	const struct lease_record *r = &all->r[at];

	return !(r->readable && (r->state == LEASE_RELEASED || r->state == LEASE_WITHDRAWN)) && !is_superseded(all, at);
}

static bool covers(const struct lease_owner *broken, const struct lease_owner *o)
{
	return broken->host[0] && (o->generation < broken->generation ||
				   (o->generation == broken->generation && strcmp(o->host, broken->host) == 0));
}

/* What may be broken: as the cluster says now, or as it said to an earlier taker of our domain. A proof stays true. */
static struct lease_owner broken_of(const struct records *all, const struct lease_record *mine)
{
	struct lease_owner best = mine->breaks;

	for (size_t i = 0; i < all->n; i++) {
		const struct lease_record *r = &all->r[i];

		if (r->readable && r->breaks.host[0] && same_domain(r, mine->uuid) &&
		    r->owner.generation <= mine->owner.generation && r->breaks.generation > best.generation)
			best = r->breaks;
	}
	return best;
}

static const char *age_text(const struct lease_record *r, char ret[48])
{
	uint64_t now = wall_us() / 1000;

	if (!r->readable)
		return "its record is not readable";
	if (r->time_ms > now)
		return "written just now"; /* the other clock is ahead */
	snprintf(ret, 48, "written %" PRIu64 " s ago", (now - r->time_ms) / 1000);
	return ret;
}

static const char *verb(const struct lease_record *r)
{
	if (!r->readable || r->state == LEASE_CLAIM)
		return "claimed";
	return r->state == LEASE_HANDED ? "handed over" : "held";
}

static int busy(const char *volume, const struct lease_record *r, struct err *err)
{
	char age[48];

	return err_set(err, EBUSY,
		       "volume '%s' is %s by %s for domain '%s' (generation %" PRIu64 ", %s); stop that domain first, or, if its host "
		       "is off for good and no domain uses the volume, remove " LEASE_FOLDER "/%s from the pool",
		       volume, verb(r), r->owner.host, r->readable && r->domain_name[0] ? r->domain_name : r->uuid,
		       r->owner.generation, age_text(r, age), volume);
}

static int stale(const struct lease_id *id, const struct lease_record *r, struct err *err)
{
	return err_set(err, ESTALE, "volume '%s': generation %" PRIu64 " on %s is over: %s has generation %" PRIu64, id->volume,
		       id->generation, id->host, r->owner.host, r->owner.generation);
}

/* May `mine` be held beside this record of another generation, host or domain? */
static bool may_pass(const struct lease_record *r, const struct lease_record *mine, const struct lease_owner *broken)
{
	bool ours = same_domain(r, mine->uuid);

	if (ours && r->owner.generation < mine->owner.generation && (covers(broken, &r->owner) || MUTANT(lease_without_proof)))
		return true;
	if (!r->readable)
		return false;
	if (r->state == LEASE_RELEASED)
		return true;
	/* Handed to one that is proven dead: neither will it write nor its giver, who has to take back first. */
	return r->state == LEASE_HANDED && ours &&
	       ((strcmp(r->next.host, mine->owner.host) == 0 && r->next.generation == mine->owner.generation) ||
		covers(broken, &r->next));
}

/* Somebody whom the cluster allowed to pass us, or who has done so. */
static const struct lease_record *find_newer(const struct records *all, const struct lease_id *id)
{
	struct lease_owner us = {.generation = id->generation};

	snprintf(us.host, sizeof(us.host), "%s", id->host);
	for (size_t i = 0; i < all->n; i++) {
		const struct lease_record *r = &all->r[i];

		if (same_domain(r, id->domain_uuid) && r->owner.generation > id->generation &&
		    (was_held(r) || (r->readable && covers(&r->breaks, &us))))
			return r;
	}
	return NULL;
}

static int judge(const struct records *all, const struct lease_id *id, const struct lease_record *mine, struct err *err)
{
	struct lease_owner broken = broken_of(all, mine);
	const struct lease_record *newer = find_newer(all, id);

	/* Also by a claim that was withdrawn: who was declared dead does not come back with the same generation. */
	if (newer)
		return stale(id, newer, err);
	for (size_t i = 0; i < all->n; i++) {
		const struct lease_record *r = &all->r[i];

		if (is_mine(r, id) || is_withdrawn(r))
			continue;
		/* Generations are a domain's own: those of another domain are not compared. */
		if (same_domain(r, id->domain_uuid) && r->owner.generation > id->generation)
			return stale(id, r, err);
		if (!is_superseded(all, i) && !may_pass(r, mine, &broken))
			return busy(id->volume, r, err);
	}
	return 0;
}

/* ---- writing ---- */

static int overwrite(struct pool_fs *fs, const char *volume, struct lease_record *r, enum lease_state state, struct err *err)
{
	char path[PATH_CHARS], content[LEASE_RECORD_BYTES];

	r->state = state;
	r->time_ms = wall_us() / 1000;
	path_of(volume, r, path);
	lease_record_format(r, content);
	return pool_fs_overwrite(fs, path, content, sizeof(content), err);
}

static int make_folder(struct pool_fs *fs, const char *volume, struct err *err)
{
	char folder[PATH_CHARS];
	int rc = pool_fs_mkdir(fs, LEASE_FOLDER, err);

	if (rc < 0 && rc != -EEXIST)
		return rc;
	folder_of(volume, folder);
	rc = pool_fs_mkdir(fs, folder, err);
	return rc == -EEXIST ? 0 : rc;
}

static int create_claim(struct pool_fs *fs, const char *volume, struct lease_record *r, struct err *err)
{
	char path[PATH_CHARS], content[LEASE_RECORD_BYTES];
	int rc = 0;

	r->state = LEASE_CLAIM;
	r->time_ms = wall_us() / 1000;
	lease_record_format(r, content);
	for (int i = 0; i < CLAIM_TRIES; i++) {
		path_of(volume, r, path);
		rc = pool_fs_create(fs, path, content, sizeof(content), err);
		if (rc == -ENOENT)
			rc = make_folder(fs, volume, err);
		else if (rc == -EEXIST)
			r->incarnation++;
		else
			return rc;
		if (rc < 0 && rc != -EEXIST)
			return rc;
	}
	return err_set(err, EIO, "volume '%s': no lease record can be made in the pool", volume);
}

/* A claim that came to nothing. If it cannot be marked it stays a claim, which only makes others more careful. */
static void withdraw(struct pool_fs *fs, const char *volume, struct lease_record *r)
{
	overwrite(fs, volume, r, LEASE_WITHDRAWN, NULL);
}

/* Removes what no longer counts once `mine` is held. Its failure is of no account: such records are passed over. */
static void tidy(struct pool_fs *fs, const char *volume, const struct records *all, const struct lease_record *mine)
{
	char path[PATH_CHARS];

	/* The oldest first: what supersedes goes after what it supersedes. */
	for (size_t i = all->n; i-- > 0;) {
		const struct lease_record *r = &all->r[i];

		if (same_domain(r, mine->uuid)
			    ? r->owner.generation > mine->owner.generation ||
				      (r->owner.generation == mine->owner.generation &&
				       (strcmp(r->owner.host, mine->owner.host) != 0 || r->incarnation >= mine->incarnation))
			    : is_live(all, i))
			continue;
		path_of(volume, r, path);
		pool_fs_remove(fs, path, NULL);
	}
}

/* Own claims of this generation that were given up: one retry after the other must not fill the folder. */
static void remove_own_claims(struct pool_fs *fs, const struct lease_id *id, const struct records *all, uint64_t incarnation)
{
	char path[PATH_CHARS];

	for (size_t i = 0; i < all->n; i++) {
		const struct lease_record *r = &all->r[i];

		/* A torn one may be what says that we hold the lease. */
		if (!is_mine(r, id) || r->incarnation >= incarnation || !r->readable || was_held(r))
			continue;
		path_of(id->volume, r, path);
		pool_fs_remove(fs, path, NULL);
	}
}

/* ---- taking ---- */

static void claim_init(const struct lease_id *id, const struct lease_break *brk, struct lease_record *ret)
{
	*ret = (struct lease_record){
		.readable = true, .owner.generation = id->generation, .incarnation = wall_us()};
	snprintf(ret->owner.host, sizeof(ret->owner.host), "%s", id->host);
	snprintf(ret->uuid, sizeof(ret->uuid), "%s", id->domain_uuid);
	snprintf(ret->domain_name, sizeof(ret->domain_name), "%s", id->domain_name ? id->domain_name : "");
	if (!brk)
		return;
	snprintf(ret->breaks.host, sizeof(ret->breaks.host), "%s", brk->host);
	ret->breaks.generation = brk->generation;
	snprintf(ret->proof, sizeof(ret->proof), "%s", brk->proof ? brk->proof : "");
}

static uint64_t newest_own(const struct records *all, const struct lease_id *id)
{
	for (size_t i = 0; i < all->n; i++)
		if (is_mine(&all->r[i], id))
			return all->r[i].incarnation;
	return 0;
}

/* Makes a claim that is the newest incarnation of ours even if this host's clock went back, and reads all records. */
static int say_then_look(struct pool_fs *fs, const struct lease_id *id, struct lease_record *mine, struct records *ret,
			 struct err *err)
{
	int rc;

	for (int i = 0; i < CLAIM_TRIES; i++) {
		rc = create_claim(fs, id->volume, mine, err);
		if (rc == 0)
			rc = read_all(fs, id->volume, ret, err);
		if (rc < 0 || newest_own(ret, id) <= mine->incarnation)
			return rc;
		withdraw(fs, id->volume, mine);
		mine->incarnation = newest_own(ret, id) + 1;
		free(ret->r);
		*ret = (struct records){0};
	}
	return err_set(err, EBUSY, "volume '%s': another program of this host takes the same lease", id->volume);
}

int lease_acquire(struct pool_fs *fs, const struct lease_id *id, const struct lease_break *brk, struct err *err)
{
	struct records all = {0};
	struct lease_record mine;
	int rc = check_id(id, err);

	if (rc == 0 && brk)
		rc = lease_record_check_host(brk->host, err);
	if (rc < 0)
		return rc;
	/* Always a new record, also for a lease that we have: a late write of our own past then hits the old one. */
	claim_init(id, brk, &mine);
	rc = say_then_look(fs, id, &mine, &all, err);
	if (rc == 0) {
		remove_own_claims(fs, id, &all, mine.incarnation);
		rc = judge(&all, id, &mine, err);
	}
	if (rc == 0)
		rc = overwrite(fs, id->volume, &mine, LEASE_HELD, err);
	/* A server that is away would only keep us waiting once more: lease_release() or the next taking withdraws it. */
	if (rc < 0 && rc != -ETIMEDOUT)
		withdraw(fs, id->volume, &mine);
	if (rc == 0 && all.n > TIDY_ABOVE)
		tidy(fs, id->volume, &all, &mine);
	free(all.r);
	return rc;
}

/* ---- while it is held ---- */

/* Our newest record that is or was held. A torn one is let be (it counts as a claim, so nobody passes it): it may be that of
 * a claim that never got through, and its late write would undo ours. */
static int find_own(const struct records *all, const struct lease_id *id, struct lease_record *ret, struct err *err)
{
	const struct lease_record *newer = find_newer(all, id);
	bool torn = false;

	if (newer)
		return stale(id, newer, err);
	for (size_t i = 0; i < all->n; i++) {
		const struct lease_record *r = &all->r[i];

		if (!is_mine(r, id))
			continue;
		torn |= !r->readable;
		if (was_held(r)) {
			*ret = *r;
			return 0;
		}
	}
	if (torn)
		return err_set(err, EIO, "volume '%s': the lease record of %s (generation %" PRIu64 ") is not readable", id->volume,
			       id->host, id->generation);
	return err_set(err, ESTALE, "volume '%s': the lease of %s (generation %" PRIu64 ") is gone from the pool", id->volume,
		       id->host, id->generation);
}

int lease_renew(struct pool_fs *fs, const struct lease_id *id, struct err *err)
{
	struct records all = {0};
	struct lease_record mine;
	int rc = check_id(id, err);

	if (rc == 0)
		rc = read_all(fs, id->volume, &all, err);
	if (rc < 0)
		return rc;
	rc = find_own(&all, id, &mine, err);
	if (rc == 0 && mine.state != LEASE_HELD)
		rc = err_set(err, ESTALE, "volume '%s': the lease of %s (generation %" PRIu64 ") was %s", id->volume, id->host,
			     id->generation, lease_state_word(mine.state));
	if (rc == 0) {
		mine.renewals++;
		rc = overwrite(fs, id->volume, &mine, LEASE_HELD, err);
		if (rc == -ENOENT)
			rc = err_set(err, ESTALE, "volume '%s': the lease of %s (generation %" PRIu64 ") was just removed",
				     id->volume, id->host, id->generation);
	}
	if (rc == 0)
		tidy(fs, id->volume, &all, &mine);
	free(all.r);
	return rc;
}

int lease_hand_over(struct pool_fs *fs, const struct lease_id *id, const char *next_host, uint64_t next_generation,
		    struct err *err)
{
	struct records all = {0};
	struct lease_record mine;
	int rc = check_id(id, err);

	if (rc == 0)
		rc = lease_record_check_host(next_host, err);
	if (rc == 0)
		rc = read_all(fs, id->volume, &all, err);
	if (rc < 0)
		return rc;
	rc = find_own(&all, id, &mine, err);
	free(all.r);
	if (rc < 0)
		return rc;
	if (mine.state != LEASE_HELD && mine.state != LEASE_HANDED)
		return err_set(err, ESTALE, "volume '%s': the lease was %s before it could be handed over", id->volume,
			       lease_state_word(mine.state));
	snprintf(mine.next.host, sizeof(mine.next.host), "%s", next_host);
	mine.next.generation = next_generation;
	return overwrite(fs, id->volume, &mine, LEASE_HANDED, err);
}

int lease_release(struct pool_fs *fs, const struct lease_id *id, struct err *err)
{
	struct records all = {0};
	int rc = check_id(id, err);

	if (rc == 0)
		rc = read_all(fs, id->volume, &all, err);
	/* The oldest first: were this cut short, what is left still says that we hold it. */
	for (size_t i = all.n; rc == 0 && i-- > 0;) {
		struct lease_record *r = &all.r[i];

		if (!is_mine(r, id) || (r->readable && (r->state == LEASE_RELEASED || r->state == LEASE_WITHDRAWN)))
			continue;
		/* "Released" would say that all before it were settled, which a mere claim never was. */
		rc = overwrite(fs, id->volume, r, was_held(r) ? LEASE_RELEASED : LEASE_WITHDRAWN, err);
		if (rc == -ENOENT)
			rc = 0; /* removed by a later holder */
	}
	free(all.r);
	return rc;
}

/* ---- for people, and for the end of a volume ---- */

int lease_describe(struct pool_fs *fs, const char *volume, struct buf *ret, struct err *err)
{
	struct records all = {0};
	char age[48];
	size_t i = 0;
	int rc = check_volume(volume, err);

	if (rc == 0)
		rc = read_all(fs, volume, &all, err);
	if (rc < 0)
		return rc;
	while (i < all.n && !is_live(&all, i))
		i++;
	if (i == all.n)
		buf_printf(ret, "free");
	else
		buf_printf(ret, "%s by %s for domain %s (generation %" PRIu64 "), %s", verb(&all.r[i]), all.r[i].owner.host,
			   all.r[i].readable && all.r[i].domain_name[0] ? all.r[i].domain_name : all.r[i].uuid,
			   all.r[i].owner.generation, age_text(&all.r[i], age));
	free(all.r);
	return 0;
}

int lease_remove_all(struct pool_fs *fs, const char *volume, struct err *err)
{
	struct records all = {0};
	char path[PATH_CHARS];
	int rc = check_volume(volume, err);

	if (rc == 0)
		rc = read_all(fs, volume, &all, err);
	for (size_t i = 0; rc == 0 && i < all.n; i++)
		if (is_live(&all, i))
			rc = busy(volume, &all.r[i], err);
	/* The oldest first: what supersedes goes after what it supersedes. */
	for (size_t i = all.n; rc == 0 && i-- > 0;) {
		path_of(volume, &all.r[i], path);
		rc = pool_fs_remove(fs, path, err);
		if (rc == -ENOENT)
			rc = 0;
	}
	free(all.r);
	if (rc < 0)
		return rc;
	folder_of(volume, path);
	rc = pool_fs_rmdir(fs, path, err);
	if (rc == -ENOTEMPTY)
		return err_set(err, EBUSY, "volume '%s': somebody took its lease just now", volume);
	return rc == -ENOENT ? 0 : rc;
}

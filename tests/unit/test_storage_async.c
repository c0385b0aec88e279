/* Pools, volumes and lease sets on the loop, over real folders and the real qemu-img. Two storages in one loop are two hosts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/buf.h"
#include "proto/pb.h"
#include "storage/lease.h"
#include "storage/storage_async.h"
#include "storage/volume.h"
#include "tests/unit/temp_folder.h"

struct answer {
	unsigned calls;
	int rc;
	struct err err;
};

static uv_loop_t loop;
static char folder[64];
static struct storage *host_a, *host_b;
static Gantry__Pool *pools[2];
static struct answer answers[8];
static struct err err;

static void on_answer(void *data, int rc, const struct err *e)
{
	struct answer *a = data;

	a->calls++;
	a->rc = rc;
	if (e)
		a->err = *e;
}

/* Runs the loop until the answer has come. */
static int wait_answer(struct answer *a, unsigned seconds)
{
	for (unsigned turns = 0; a->calls == 0 && turns < seconds * 1000; turns++) {
		uv_run(&loop, UV_RUN_NOWAIT);
		usleep(1000);
	}
	for (int i = 0; i < 3; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(a->calls, 1);
	return a->rc;
}

static Gantry__Pool *pool_new(const char *name, const char *target)
{
	Gantry__Pool *p = PB_NEW(Gantry__Pool, gantry__pool__init);

	pb_set_string(&p->name, name);
	pb_set_string(&p->target, target);
	return p;
}

static int setup(void **state)
{
	char path[100];

	memset(answers, 0, sizeof(answers));
	temp_folder_make(folder, sizeof(folder));
	uv_loop_init(&loop);
	snprintf(path, sizeof(path), "%s/one", folder);
	mkdir(path, 0755);
	pools[0] = pool_new("one", path);
	snprintf(path, sizeof(path), "%s/two", folder);
	mkdir(path, 0755);
	pools[1] = pool_new("two", path);
	storage_new(&loop, "hostA", &host_a);
	storage_new(&loop, "hostB", &host_b);
	storage_set_pools(host_a, pools, 2);
	storage_set_pools(host_b, pools, 2);
	return 0;
}

static int teardown(void **state)
{
	storage_free(host_a);
	storage_free(host_b);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	gantry__pool__free_unpacked(pools[0], NULL);
	gantry__pool__free_unpacked(pools[1], NULL);
	temp_folder_remove(folder);
	return 0;
}

static Gantry__Volume *volume_new(const char *pool, const char *name, Gantry__DiskFormat format, uint64_t size_bytes)
{
	Gantry__Volume *v = PB_NEW(Gantry__Volume, gantry__volume__init);

	pb_set_string(&v->pool, pool);
	pb_set_string(&v->name, name);
	v->format = format;
	v->size_bytes = size_bytes;
	return v;
}

static int create_volume(const char *pool, const char *name, Gantry__DiskFormat format, uint64_t size_bytes)
{
	Gantry__Volume *v = volume_new(pool, name, format, size_bytes);
	struct answer a = {0};
	int rc = storage_volume_create(host_a, v, on_answer, &a, &err);

	if (rc == 0) {
		rc = wait_answer(&a, 60);
		err = a.err;
	}
	gantry__volume__free_unpacked(v, NULL);
	return rc;
}

static int delete_volume(const char *pool, const char *name, Gantry__DiskFormat format)
{
	Gantry__Volume *v = volume_new(pool, name, format, 0);
	struct answer a = {0};
	int rc = storage_volume_delete(host_a, v, on_answer, &a, &err);

	if (rc == 0) {
		rc = wait_answer(&a, 60);
		err = a.err;
	}
	gantry__volume__free_unpacked(v, NULL);
	return rc;
}

static Gantry__DomainSpec *spec_new(void)
{
	Gantry__DomainSpec *s = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);

	pb_set_string(&s->name, "web1");
	pb_set_string(&s->uuid, "0f1e2d3c-0000-4000-8000-000000000001");
	return s;
}

static Gantry__Disk *spec_add(Gantry__DomainSpec *s, const char *pool, const char *volume)
{
	Gantry__Disk *d = PB_NEW(Gantry__Disk, gantry__disk__init);

	pb_set_string(&d->vdev, "xvda");
	pb_set_string(&d->pool, pool);
	pb_set_string(&d->volume, volume);
	d->format = GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2;
	PB_APPEND(s, disks, d);
	return d;
}

static off_t file_size(const char *name)
{
	char path[200];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return stat(path, &st) < 0 ? -1 : st.st_size;
}

static void put_file(const char *name, const char *content, mode_t mode)
{
	char path[200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(content, f);
	fclose(f);
	chmod(path, mode);
}

/* ---- volumes ---- */

static void test_volumes_are_made_and_deleted(void **state)
{
	assert_int_equal(create_volume("one", "web1", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2, 8 << 20), 0);
	assert_true(file_size("one/web1.qcow2") > 1000);
	assert_int_equal(create_volume("two", "raw1", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW, 1 << 20), 0);
	assert_int_equal(file_size("two/raw1.raw"), 1 << 20);
	assert_int_equal(delete_volume("two", "raw1", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW), 0);
	assert_int_equal(file_size("two/raw1.raw"), -1);
	assert_int_equal(delete_volume("two", "raw1", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW), 0);
}

static void test_file_that_is_there_is_not_overwritten(void **state)
{
	put_file("one/web1.qcow2", "precious", 0644);
	assert_int_equal(create_volume("one", "web1", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2, 8 << 20), -EEXIST);
	assert_non_null(strstr(err.text, "web1.qcow2"));
	assert_int_equal(file_size("one/web1.qcow2"), 8);
}

static void test_volumes_that_cannot_be_are_refused(void **state)
{
	assert_int_equal(create_volume("one", "big", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW, 1ull << 60), -ENOSPC);
	assert_non_null(strstr(err.text, "pool 'one'"));
	assert_int_equal(file_size("one/big.raw"), -1);
	assert_int_equal(create_volume("none", "v", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW, 1), -ENOENT);
	assert_non_null(strstr(err.text, "pool 'none'"));
	assert_int_equal(create_volume("one", "../v", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW, 1), -EINVAL);
	assert_int_equal(create_volume("one", ".hidden", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW, 1), -EINVAL);
	assert_int_equal(create_volume("one", "v", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW, 0), -EINVAL);
	assert_int_equal(create_volume("one", "v", GANTRY__DISK_FORMAT__DISK_FORMAT_VHD, 1 << 20), -ENOTSUP);
}

static void test_qemu_img_that_fails_leaves_nothing(void **state)
{
	char *path = str_dup(getenv("PATH")), *changed = str_printf("%s:%s", folder, path);

	put_file("qemu-img", "#!/bin/sh\necho half > \"$5\"\necho \"the disk is made of cheese\" >&2\nexit 1\n", 0755);
	setenv("PATH", changed, 1);
	assert_int_equal(create_volume("one", "web1", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2, 8 << 20), -EIO);
	setenv("PATH", path, 1);
	assert_non_null(strstr(err.text, "made of cheese"));
	assert_non_null(strstr(err.text, "one/web1"));
	assert_int_equal(file_size("one/web1.qcow2"), -1);
	free(path);
	free(changed);
}

/* GANTRY_TEST_NFS as in test_pool_fs.c. */
static void test_volumes_on_nfs(void **state)
{
	Gantry__Pool *nfs = pool_new("nfs", getenv("GANTRY_TEST_NFS"));
	Gantry__DomainSpec *s = spec_new();

	nfs->type = GANTRY__POOL_TYPE__POOL_TYPE_NFS;
	spec_add(s, "nfs", "async-test");
	if (getenv("GANTRY_TEST_NFS")) {
		storage_set_pools(host_a, &nfs, 1);
		assert_int_equal(create_volume("nfs", "async-test", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2, 8 << 20), 0);
		assert_int_equal(create_volume("nfs", "async-test", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2, 8 << 20), -EEXIST);
		assert_int_equal(storage_check_volumes(host_a, s, on_answer, &answers[0], &err), 0);
		assert_int_equal(wait_answer(&answers[0], 5), 0);
		assert_int_equal(delete_volume("nfs", "async-test", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2), 0);
		assert_int_equal(storage_check_volumes(host_a, s, on_answer, &answers[1], &err), 0);
		assert_int_equal(wait_answer(&answers[1], 5), -ENOENT);
	}
	gantry__domain_spec__free_unpacked(s, NULL);
	gantry__pool__free_unpacked(nfs, NULL);
	if (!getenv("GANTRY_TEST_NFS"))
		skip();
}

static void test_what_qemu_calls_a_volume(void **state)
{
	Gantry__Pool *nfs = pool_new("nfs", "nfs://10.79.0.254/pool/");
	Gantry__Volume *v = volume_new("nfs", "web1", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2, 0);
	Gantry__DomainSpec *s = spec_new();
	Gantry__Disk *d = spec_add(s, "one", "web1");
	char *uri = volume_uri(nfs, v), *expected = str_printf("%s/one/web1.qcow2", folder);

	assert_string_equal(uri, "nfs://10.79.0.254/pool/web1.qcow2");
	free(uri);
	assert_int_equal(storage_disk_uri(host_a, d, &uri, &err), 0);
	assert_string_equal(uri, expected);
	free(uri);
	d->format = GANTRY__DISK_FORMAT__DISK_FORMAT_VHD;
	assert_int_equal(storage_disk_uri(host_a, d, &uri, &err), -ENOTSUP);
	pb_set_string(&d->pool, "none");
	assert_int_equal(storage_disk_uri(host_a, d, &uri, &err), -ENOENT);
	assert_non_null(strstr(err.text, "none"));
	pb_set_string(&d->pool, "");
	pb_set_string(&d->path, "/dev/sdx");
	assert_int_equal(storage_disk_uri(host_a, d, &uri, &err), 0);
	assert_string_equal(uri, "/dev/sdx");
	free(uri);
	free(expected);
	gantry__domain_spec__free_unpacked(s, NULL);
	gantry__volume__free_unpacked(v, NULL);
	gantry__pool__free_unpacked(nfs, NULL);
}

static void test_volumes_out_of_reach_are_named(void **state)
{
	Gantry__DomainSpec *s = spec_new();
	Gantry__Disk *second;

	assert_int_equal(storage_check_volumes(host_a, s, on_answer, &answers[0], &err), 0);
	assert_int_equal(answers[0].calls, 0);
	assert_int_equal(wait_answer(&answers[0], 5), 0);
	put_file("one/web1.qcow2", "x", 0644);
	spec_add(s, "one", "web1");
	second = spec_add(s, "two", "data");
	assert_int_equal(storage_check_volumes(host_a, s, on_answer, &answers[1], &err), 0);
	assert_int_equal(wait_answer(&answers[1], 5), -ENOENT);
	assert_non_null(strstr(answers[1].err.text, "pool 'two'"));
	assert_non_null(strstr(answers[1].err.text, "data.qcow2"));
	put_file("two/data.qcow2", "", 0644);
	assert_int_equal(storage_check_volumes(host_a, s, on_answer, &answers[2], &err), 0);
	assert_int_equal(wait_answer(&answers[2], 5), 0);
	pb_set_string(&second->pool, "none");
	assert_int_equal(storage_check_volumes(host_a, s, on_answer, &answers[3], &err), 0);
	assert_int_equal(wait_answer(&answers[3], 5), -ENOENT);
	assert_non_null(strstr(answers[3].err.text, "none"));
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_pools_are_reported(void **state)
{
	Gantry__Pool *changed[2] = {pools[0], pool_new("two", "/no/such/folder")};
	Gantry__PoolReport *const *reports;
	const Gantry__PoolReport *two;
	size_t n;

	storage_set_pools(host_a, changed, 2);
	assert_string_equal(storage_find_pool(host_a, "two")->target, "/no/such/folder");
	for (int i = 0; i < 200; i++) {
		uv_run(&loop, UV_RUN_NOWAIT);
		usleep(1000);
	}
	n = storage_pool_reports(host_a, &reports);
	assert_int_equal(n, 2);
	two = strcmp(reports[0]->name, "two") == 0 ? reports[0] : reports[1];
	assert_false(two->ok);
	assert_non_null(strstr(two->reason, "/no/such/folder"));
	two = two == reports[0] ? reports[1] : reports[0];
	assert_true(two->ok && two->capacity_bytes > 0 && two->free_bytes > 0);
	assert_string_equal(two->reason, "");
	storage_set_pools(host_a, NULL, 0);
	assert_int_equal(storage_pool_reports(host_a, &reports), 0);
	assert_null(storage_find_pool(host_a, "one"));
	gantry__pool__free_unpacked(changed[1], NULL);
}

/* ---- leases ---- */

static Gantry__DomainSpec *two_disks(void)
{
	Gantry__DomainSpec *s = spec_new();

	spec_add(s, "one", "web1");
	spec_add(s, "two", "data");
	spec_add(s, "one", "iso")->readonly = true; /* no lease: may be read by all */
	return s;
}

static struct storage_lease_set *ask(struct storage *st, const Gantry__DomainSpec *spec, uint64_t generation, struct answer *a)
{
	struct storage_lease_request rq = {.spec = spec, .generation = generation};
	struct storage_lease_set *ls = NULL;

	memset(a, 0, sizeof(*a));
	assert_int_equal(storage_leases_acquire(st, &rq, on_answer, a, &ls, &err), 0);
	assert_int_equal(a->calls, 0);
	return ls;
}

static struct storage_lease_set *take(struct storage *st, const Gantry__DomainSpec *spec, uint64_t generation)
{
	struct storage_lease_set *ls = ask(st, spec, generation, &answers[7]);

	if (wait_answer(&answers[7], 10) < 0)
		fail_msg("%s", answers[7].err.text);
	return ls;
}

static int try_take(struct storage *st, const Gantry__DomainSpec *spec, uint64_t generation)
{
	ask(st, spec, generation, &answers[7]);
	return wait_answer(&answers[7], 10);
}

static void release(struct storage_lease_set *ls)
{
	memset(&answers[6], 0, sizeof(answers[6]));
	storage_leases_release(ls, on_answer, &answers[6]);
	assert_int_equal(wait_answer(&answers[6], 10), 0);
}

static void assert_lease(const char *pool_path, const char *volume, const char *part)
{
	Gantry__Pool pool = GANTRY__POOL__INIT;
	char path[100];
	struct pool_fs *fs;
	struct buf text = {0};

	snprintf(path, sizeof(path), "%s/%s", folder, pool_path);
	pool.name = (char *)"check";
	pool.target = path;
	assert_int_equal(pool_fs_open(&pool, &fs, &err), 0);
	assert_int_equal(lease_describe(fs, volume, &text, &err), 0);
	if (!strstr(buf_str(&text), part))
		fail_msg("%s: '%s' instead of '%s'", volume, buf_str(&text), part);
	buf_free(&text);
	pool_fs_close(fs);
}

static void test_leases_are_taken_all_or_none(void **state)
{
	Gantry__DomainSpec *both = two_disks(), *data = spec_new();
	struct storage_lease_set *b, *a;

	spec_add(data, "two", "data");
	pb_set_string(&data->uuid, "another-domain");
	pb_set_string(&data->name, "db1");
	b = take(host_b, data, 1);
	assert_int_equal(try_take(host_a, both, 1), -EBUSY);
	assert_non_null(strstr(answers[7].err.text, "hostB"));
	assert_non_null(strstr(answers[7].err.text, "db1"));
	assert_lease("one", "web1", "free");
	release(b);
	a = take(host_a, both, 2);
	assert_lease("one", "web1", "held by hostA");
	assert_lease("two", "data", "held by hostA");
	assert_int_equal(file_size("one/.gantry/iso"), -1);
	assert_int_equal(delete_volume("one", "web1", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2), -EBUSY);
	release(a);
	assert_lease("one", "web1", "free");
	assert_int_equal(delete_volume("one", "web1", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2), 0);
	assert_int_equal(file_size("one/.gantry/web1"), -1);
	gantry__domain_spec__free_unpacked(both, NULL);
	gantry__domain_spec__free_unpacked(data, NULL);
}

static void test_leases_move_with_a_migration_and_back(void **state)
{
	Gantry__DomainSpec *s = two_disks();
	struct storage_lease_set *a = take(host_a, s, 1), *b;

	assert_int_equal(storage_leases_hand_over(a, "hostB", 2, on_answer, &answers[0]), 0);
	assert_int_equal(wait_answer(&answers[0], 5), 0);
	assert_lease("two", "data", "handed over by hostA");
	assert_int_equal(storage_leases_take_back(a, on_answer, &answers[1]), 0);
	assert_int_equal(wait_answer(&answers[1], 5), 0);
	assert_int_equal(try_take(host_b, s, 2), -EBUSY);
	assert_int_equal(storage_leases_hand_over(a, "hostB", 2, on_answer, &answers[2]), 0);
	assert_int_equal(wait_answer(&answers[2], 5), 0);
	b = take(host_b, s, 2);
	assert_int_equal(storage_leases_take_back(a, on_answer, &answers[3]), 0);
	assert_int_equal(wait_answer(&answers[3], 5), -ESTALE);
	storage_leases_drop(a);
	assert_lease("two", "data", "held by hostB");
	release(b);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_dead_hosts_leases_are_broken_and_it_is_told(void **state)
{
	Gantry__DomainSpec *s = two_disks();
	struct storage_lease_set *a = take(host_a, s, 1), *b = NULL;
	struct storage_lease_request rq = {.spec = s, .generation = 2, .break_host = "", .break_generation = 1, .break_proof = "fenced"};

	storage_leases_on_lost(a, on_answer, &answers[0]);
	assert_int_equal(storage_leases_acquire(host_b, &rq, on_answer, &answers[1], &b, &err), 0);
	assert_int_equal(wait_answer(&answers[1], 5), -EBUSY);
	rq.break_host = "hostA";
	assert_int_equal(storage_leases_acquire(host_b, &rq, on_answer, &answers[2], &b, &err), 0);
	assert_int_equal(wait_answer(&answers[2], 5), 0);
	/* Its next renewal. */
	assert_int_equal(wait_answer(&answers[0], LEASE_RENEW_MS / 1000 + 3), -ESTALE);
	assert_non_null(strstr(answers[0].err.text, "hostB has generation 2"));
	storage_leases_drop(a);
	release(b);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_domain_without_volumes_needs_no_lease(void **state)
{
	Gantry__DomainSpec *s = spec_new();
	struct storage_lease_set *a = take(host_a, s, 1);

	assert_int_equal(storage_leases_hand_over(a, "hostB", 2, on_answer, &answers[0]), 0);
	assert_int_equal(answers[0].calls, 0);
	assert_int_equal(wait_answer(&answers[0], 5), 0);
	storage_leases_release(a, on_answer, &answers[1]);
	assert_int_equal(answers[1].calls, 0);
	assert_int_equal(wait_answer(&answers[1], 5), 0);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_taking_that_is_given_up_leaves_nothing_held(void **state)
{
	Gantry__DomainSpec *s = two_disks();
	struct storage_lease_set *a = ask(host_a, s, 1, &answers[0]);

	storage_leases_release(a, on_answer, &answers[1]);
	assert_int_equal(wait_answer(&answers[0], 5), -ECANCELED);
	assert_int_equal(answers[1].calls ? answers[1].rc : wait_answer(&answers[1], 5), 0);
	assert_lease("one", "web1", "free");
	assert_lease("two", "data", "free");
	a = ask(host_a, s, 2, &answers[2]);
	storage_leases_drop(a);
	assert_int_equal(wait_answer(&answers[2], 5), -ECANCELED);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_asked_in_a_row_is_done_in_that_row(void **state)
{
	Gantry__DomainSpec *s = two_disks();
	struct storage_lease_set *a = take(host_a, s, 1);

	storage_leases_hand_over(a, "hostB", 2, on_answer, &answers[0]);
	storage_leases_take_back(a, on_answer, &answers[1]);
	storage_leases_release(a, on_answer, &answers[2]);
	assert_int_equal(wait_answer(&answers[2], 5), 0);
	assert_int_equal(answers[0].calls + answers[1].calls, 2);
	assert_int_equal(answers[0].rc | answers[1].rc, 0);
	assert_lease("one", "web1", "free");
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_leases_outlive_their_pool_in_the_goals(void **state)
{
	Gantry__DomainSpec *s = two_disks();
	struct storage_lease_set *a = take(host_a, s, 1);

	storage_set_pools(host_a, NULL, 0);
	release(a);
	assert_lease("two", "data", "free");
	release(take(host_b, s, 2));
	assert_int_equal(storage_leases_acquire(host_a, &(struct storage_lease_request){.spec = s, .generation = 3}, on_answer, &answers[1], &a, &err),
			 -ENOENT);
	gantry__domain_spec__free_unpacked(s, NULL);
}

/* Two domains on a server that is away: the second one's answer does not take as long again. */
static void test_pool_that_does_not_answer_is_asked_once(void **state)
{
	Gantry__Pool *gone = pool_new("gone", "nfs://127.0.0.1:1/pool");
	Gantry__DomainSpec *s = spec_new();
	Gantry__PoolReport *const *reports;
	uint64_t begin;

	gone->type = GANTRY__POOL_TYPE__POOL_TYPE_NFS;
	pb_set_string(&gone->target, "nfs://127.99.99.99/pool");
	spec_add(s, "gone", "v");
	storage_set_pools(host_a, &gone, 1);
	ask(host_a, s, 1, &answers[0]);
	ask(host_a, s, 1, &answers[1]);
	uv_update_time(&loop);
	begin = uv_now(&loop);
	wait_answer(&answers[1], 30);
	assert_true(uv_now(&loop) - begin < 14000);
	assert_int_equal(answers[0].calls ? answers[0].rc : wait_answer(&answers[0], 5), -ETIMEDOUT);
	assert_int_equal(answers[1].rc, -ETIMEDOUT);
	assert_int_equal(storage_pool_reports(host_a, &reports), 1);
	assert_false(reports[0]->ok);
	gantry__domain_spec__free_unpacked(s, NULL);
	gantry__pool__free_unpacked(gone, NULL);
}

#define ON_LOOP(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_LOOP(test_volumes_are_made_and_deleted),
		ON_LOOP(test_file_that_is_there_is_not_overwritten),
		ON_LOOP(test_volumes_that_cannot_be_are_refused),
		ON_LOOP(test_qemu_img_that_fails_leaves_nothing),
		ON_LOOP(test_volumes_on_nfs),
		ON_LOOP(test_what_qemu_calls_a_volume),
		ON_LOOP(test_volumes_out_of_reach_are_named),
		ON_LOOP(test_pools_are_reported),
		ON_LOOP(test_leases_are_taken_all_or_none),
		ON_LOOP(test_leases_move_with_a_migration_and_back),
		ON_LOOP(test_dead_hosts_leases_are_broken_and_it_is_told),
		ON_LOOP(test_domain_without_volumes_needs_no_lease),
		ON_LOOP(test_taking_that_is_given_up_leaves_nothing_held),
		ON_LOOP(test_asked_in_a_row_is_done_in_that_row),
		ON_LOOP(test_leases_outlive_their_pool_in_the_goals),
		ON_LOOP(test_pool_that_does_not_answer_is_asked_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

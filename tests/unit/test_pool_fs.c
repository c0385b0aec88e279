/* One suite for every kind of pool, the simulator's pool in memory too. That and a folder always; an NFS export where GANTRY_TEST_NFS=nfs://ADDRESS/EXPORT names one
 * (the lab's: nfs://10.79.0.254/pool; the test works in a folder of its own there, made and removed by it). */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/limits.h"
#include "storage/lease.h"
#include "storage/pool_fs.h"
#include "tests/sim/mem_pool.h"
#include "tests/unit/temp_folder.h"

static char folder[64];
static struct err err;

static int make_folder(void **state)
{
	temp_folder_make(folder, sizeof(folder));
	return 0;
}

static int remove_folder(void **state)
{
	temp_folder_remove(folder);
	return 0;
}

static Gantry__Pool dir_pool(void)
{
	Gantry__Pool p = GANTRY__POOL__INIT;

	p.name = (char *)"fast";
	p.target = folder;
	return p;
}

static Gantry__Pool nfs_pool(const char *target)
{
	Gantry__Pool p = GANTRY__POOL__INIT;

	p.name = (char *)"shared";
	p.type = GANTRY__POOL_TYPE__POOL_TYPE_NFS;
	p.target = (char *)target;
	return p;
}

static char *content_of(struct pool_fs *fs, const char *name, struct buf *b)
{
	b->len = 0;
	assert_int_equal(pool_fs_read(fs, name, 4096, b, &err), 0);
	return (char *)buf_str(b);
}

static void check_files(struct pool_fs *fs)
{
	struct buf b = {0};
	uint64_t size = 0;

	assert_int_equal(pool_fs_create(fs, "t/a", "one", 3, &err), 0);
	assert_int_equal(pool_fs_create(fs, "t/a", "two", 3, &err), -EEXIST);
	assert_string_equal(content_of(fs, "t/a", &b), "one");
	assert_int_equal(pool_fs_exists(fs, "t/a", &size, &err), 0);
	assert_int_equal(size, 3);
	assert_int_equal(pool_fs_overwrite(fs, "t/a", "six", 3, &err), 0);
	assert_string_equal(content_of(fs, "t/a", &b), "six");
	/* In place: what lies behind stays. */
	assert_int_equal(pool_fs_overwrite(fs, "t/a", "fo", 2, &err), 0);
	assert_string_equal(content_of(fs, "t/a", &b), "fox");
	assert_int_equal(pool_fs_overwrite(fs, "t/a", "six", 3, &err), 0);
	assert_int_equal(pool_fs_sync(fs, "t/a", &err), 0);
	assert_int_equal(pool_fs_sync(fs, "t/none", &err), -ENOENT);
	assert_int_equal(pool_fs_create(fs, "t/none/a", "one", 3, &err), -ENOENT);
	assert_int_equal(pool_fs_overwrite(fs, "t/none", "six", 3, &err), -ENOENT);
	assert_int_equal(pool_fs_exists(fs, "t/none", &size, &err), -ENOENT);
	assert_non_null(strstr(err.text, "'t/none'"));
	assert_non_null(strstr(err.text, pool_fs_pool_name(fs)));
	b.len = 0;
	assert_int_equal(pool_fs_read(fs, "t/none", 10, &b, &err), -ENOENT);
	assert_int_equal(pool_fs_read(fs, "t/a", 2, &b, &err), -EFBIG);
	assert_int_equal(b.len, 0);
	assert_int_equal(pool_fs_peek(fs, "t/a", 2, &b, &err), 0);
	assert_string_equal(buf_str(&b), "si");
	assert_int_equal(pool_fs_remove(fs, "t/a", &err), 0);
	assert_int_equal(pool_fs_remove(fs, "t/a", &err), -ENOENT);
	buf_free(&b);
}

/* More than one read and write of NFS, and every byte in its place. */
static void check_large_file(struct pool_fs *fs)
{
	enum { BYTES = 300000 };
	char *data = malloc(BYTES);
	struct buf b = {0};

	for (int i = 0; i < BYTES; i++)
		data[i] = (char)(i * 7 + i / 251);
	assert_int_equal(pool_fs_create(fs, "t/large", data, BYTES, &err), 0);
	assert_int_equal(pool_fs_read(fs, "t/large", BYTES, &b, &err), 0);
	assert_int_equal(b.len, BYTES);
	assert_memory_equal(b.data, data, BYTES);
	assert_int_equal(pool_fs_remove(fs, "t/large", &err), 0);
	buf_free(&b);
	free(data);
}

static void check_folders(struct pool_fs *fs)
{
	char name[32], **names;
	bool seen[120] = {0};
	size_t n;

	assert_int_equal(pool_fs_mkdir(fs, "t/d", &err), 0);
	assert_int_equal(pool_fs_mkdir(fs, "t/d", &err), -EEXIST);
	assert_int_equal(pool_fs_list(fs, "t/none", &names, &n, &err), -ENOENT);
	for (int i = 0; i < 120; i++) {
		snprintf(name, sizeof(name), "t/d/f%d", i);
		assert_int_equal(pool_fs_create(fs, name, "", 0, &err), 0);
	}
	assert_int_equal(pool_fs_list(fs, "t/d", &names, &n, &err), 0);
	assert_int_equal(n, 120);
	for (size_t i = 0; i < n; i++) {
		int k = atoi(names[i] + 1);

		assert_true(names[i][0] == 'f' && k >= 0 && k < 120 && !seen[k]);
		seen[k] = true;
	}
	pool_fs_free_list(names, n);
	assert_int_equal(pool_fs_rmdir(fs, "t/d", &err), -ENOTEMPTY);
	for (int i = 0; i < 120; i++) {
		snprintf(name, sizeof(name), "t/d/f%d", i);
		assert_int_equal(pool_fs_remove(fs, name, &err), 0);
	}
	assert_int_equal(pool_fs_list(fs, "t/d", &names, &n, &err), 0);
	assert_int_equal(n, 0);
	pool_fs_free_list(names, n);
	assert_int_equal(pool_fs_rmdir(fs, "t/d", &err), 0);
	assert_int_equal(pool_fs_rmdir(fs, "t/d", &err), -ENOENT);
}

/* What one host makes the other sees at once: the lease stands on it. */
static void check_two_hosts(struct pool_fs *a, struct pool_fs *b)
{
	struct buf content = {0};
	char **names;
	size_t n;

	for (int i = 0; i < 20; i++) {
		assert_int_equal(pool_fs_create(a, "t/x", "1", 1, &err), 0);
		assert_int_equal(pool_fs_list(b, "t", &names, &n, &err), 0);
		assert_int_equal(n, 1);
		pool_fs_free_list(names, n);
		assert_int_equal(pool_fs_create(b, "t/x", "2", 1, &err), -EEXIST);
		assert_int_equal(pool_fs_overwrite(b, "t/x", "3", 1, &err), 0);
		assert_string_equal(content_of(a, "t/x", &content), "3");
		assert_int_equal(pool_fs_remove(b, "t/x", &err), 0);
		assert_int_equal(pool_fs_list(a, "t", &names, &n, &err), 0);
		assert_int_equal(n, 0);
		pool_fs_free_list(names, n);
	}
	buf_free(&content);
}

static double ms_since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - t->tv_sec) * 1e3 + (double)(now.tv_nsec - t->tv_nsec) / 1e6;
}

/* A migration's leases, as its downtime sees them. The figures are printed, for docs/storage.md. */
static void check_lease(struct pool_fs *a, struct pool_fs *b)
{
	struct lease_id id = {.volume = "t-disk", .host = "hostA", .domain_uuid = "d-1", .domain_name = "web1", .generation = 1};
	struct timespec t;
	double handed, taken;

	assert_int_equal(lease_acquire(a, &id, NULL, &err), 0);
	assert_int_equal(lease_renew(a, &id, &err), 0);
	clock_gettime(CLOCK_MONOTONIC, &t);
	assert_int_equal(lease_hand_over(a, &id, "hostB", 2, &err), 0);
	handed = ms_since(&t);
	id.host = "hostC";
	id.generation = 2;
	assert_int_equal(lease_acquire(b, &id, NULL, &err), -EBUSY);
	id.host = "hostB";
	clock_gettime(CLOCK_MONOTONIC, &t);
	assert_int_equal(lease_acquire(b, &id, NULL, &err), 0);
	taken = ms_since(&t);
	print_message("%s: lease handed over in %.1f ms, taken in %.1f ms\n", pool_fs_pool_name(a), handed, taken);
	assert_int_equal(lease_remove_all(a, "t-disk", &err), -EBUSY);
	assert_int_equal(lease_release(b, &id, &err), 0);
	assert_int_equal(lease_remove_all(a, "t-disk", &err), 0);
}

/* As one host and another see it. Closes both. */
static void check_all(struct pool_fs *a, struct pool_fs *b)
{
	static const char *const bad[] = {"", "/x", "..", "a/../b", "a//b", "a/", "./a", "../x"};
	uint64_t total = 0, available = 0;

	assert_int_equal(pool_fs_mkdir(a, "t", &err), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(pool_fs_create(a, bad[i], "x", 1, &err), -EINVAL);
	check_files(a);
	check_large_file(a);
	check_folders(a);
	check_two_hosts(a, b);
	check_lease(a, b);
	assert_int_equal(pool_fs_space(a, &total, &available, &err), 0);
	assert_true(total > 0 && available > 0 && available <= total);
	assert_int_equal(pool_fs_rmdir(a, "t", &err), 0);
	pool_fs_close(a);
	pool_fs_close(b);
}

static struct pool_fs *opened(const Gantry__Pool *pool)
{
	struct pool_fs *fs = NULL;

	if (pool_fs_open(pool, &fs, &err) < 0)
		fail_msg("%s", err.text);
	return fs;
}

static void test_folder_does_all(void **state)
{
	Gantry__Pool pool = dir_pool();

	check_all(opened(&pool), opened(&pool));
}

static struct pool_fs *in_memory(struct mem_files *files)
{
	struct mem_pool *p = mem_alloc(sizeof(*p));

	mem_pool_init(p, str_dup("memory"), files);
	return &p->fs;
}

static void test_memory_does_all(void **state)
{
	struct mem_files files = {0};

	check_all(in_memory(&files), in_memory(&files));
	mem_files_clear(&files);
}

static void test_nfs_does_all(void **state)
{
	const char *target = getenv("GANTRY_TEST_NFS");
	Gantry__Pool pool = nfs_pool(target);

	if (!target) {
		print_message("GANTRY_TEST_NFS names no export\n");
		skip();
	}
	check_all(opened(&pool), opened(&pool));
}

/* GANTRY_TEST_NFS_RESTART=SECONDS: somebody else stops and starts the server meanwhile (docs/storage.md). */
static void test_nfs_server_that_restarts_only_delays(void **state)
{
	const char *target = getenv("GANTRY_TEST_NFS"), *seconds = getenv("GANTRY_TEST_NFS_RESTART");
	Gantry__Pool pool = nfs_pool(target);
	struct pool_fs *fs;
	struct timespec begin, one;
	double longest = 0;

	if (!target || !seconds)
		skip();
	assert_int_equal(pool_fs_open(&pool, &fs, &err), 0);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	pool_fs_remove(fs, "r", NULL); /* of a run that failed */
	assert_int_equal(pool_fs_create(fs, "r", "0", 1, &err), 0);
	while (ms_since(&begin) < atof(seconds) * 1e3) {
		clock_gettime(CLOCK_MONOTONIC, &one);
		if (pool_fs_overwrite(fs, "r", "1", 1, &err) < 0)
			fail_msg("after %.0f ms: %s", ms_since(&begin), err.text);
		longest = ms_since(&one) > longest ? ms_since(&one) : longest;
		usleep(20000);
	}
	print_message("the longest write took %.0f ms\n", longest);
	assert_int_equal(pool_fs_remove(fs, "r", &err), 0);
	pool_fs_close(fs);
}

static void loopback_up(void)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	close(fd);
}

/* A server that takes the connection and says nothing, and one that is not there at all. */
static void test_dead_server_is_given_up(void **state)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(111)};
	Gantry__Pool pool = nfs_pool("nfs://127.0.0.1/pool");
	struct pool_fs *fs = NULL;
	struct timespec begin;
	int mute;

	/* In a network of its own no portmapper of this machine can answer. */
	if (unshare(CLONE_NEWNET) < 0)
		skip();
	loopback_up();
	mute = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(mute, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(mute, 8), 0);
	for (int there = 1; there >= 0; there--) {
		clock_gettime(CLOCK_MONOTONIC, &begin);
		assert_int_equal(pool_fs_open(&pool, &fs, &err), -ETIMEDOUT);
		assert_true(ms_since(&begin) < 11500);
		assert_non_null(strstr(err.text, "127.0.0.1"));
		assert_null(fs);
		if (there)
			close(mute);
	}
}

static void test_targets_are_checked(void **state)
{
	static const char *const bad[] = {"", "nfs://", "nfs://host", "nfs://host/", "nfs:///pool", "http://host/pool", "nfs://host/p?uid=0"};
	Gantry__Pool pool = dir_pool();
	struct pool_fs *fs = NULL;

	pool.target = (char *)"relative/path";
	assert_int_equal(pool_fs_open(&pool, &fs, &err), -EINVAL);
	pool.target = (char *)"/no/such/folder";
	assert_int_equal(pool_fs_open(&pool, &fs, &err), -ENOENT);
	assert_non_null(strstr(err.text, "pool 'fast'"));
	assert_non_null(strstr(err.text, "/no/such/folder"));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pool = nfs_pool(bad[i]);
		assert_int_equal(pool_fs_open(&pool, &fs, &err), -EINVAL);
	}
}

static void test_link_out_of_the_pool_is_not_followed(void **state)
{
	Gantry__Pool pool = dir_pool();
	struct pool_fs *fs;
	struct buf b = {0};
	char link[100];

	assert_int_equal(pool_fs_open(&pool, &fs, &err), 0);
	snprintf(link, sizeof(link), "%s/out", folder);
	assert_int_equal(symlink("/etc", link), 0);
	assert_true(pool_fs_read(fs, "out/passwd", 4096, &b, &err) < 0);
	assert_true(pool_fs_create(fs, "out/gantry-was-here", "x", 1, &err) < 0);
	assert_int_equal(access("/etc/gantry-was-here", F_OK), -1);
	assert_int_equal(unlink(link), 0);
	pool_fs_close(fs);
}

static void test_folder_that_was_mounted_over_is_noticed(void **state)
{
	Gantry__Pool pool = dir_pool();
	struct pool_fs *fs;
	uint64_t total, available;
	char other[100];

	assert_int_equal(pool_fs_open(&pool, &fs, &err), 0);
	snprintf(other, sizeof(other), "%s.old", folder);
	assert_int_equal(rename(folder, other), 0);
	assert_int_equal(mkdir(folder, 0755), 0);
	assert_int_equal(pool_fs_space(fs, &total, &available, &err), -ENXIO);
	assert_int_equal(rmdir(other), 0);
	pool_fs_close(fs);
}

#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(test_folder_does_all),
		cmocka_unit_test(test_memory_does_all),
		cmocka_unit_test(test_nfs_does_all),
		cmocka_unit_test(test_nfs_server_that_restarts_only_delays),
		WITH_FOLDER(test_targets_are_checked),
		WITH_FOLDER(test_link_out_of_the_pool_is_not_followed),
		WITH_FOLDER(test_folder_that_was_mounted_over_is_noticed),
		cmocka_unit_test(test_dead_server_is_given_up), /* last: it leaves the network namespace */
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

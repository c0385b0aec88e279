/* host.yaml, and files that are whole or not there. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/atomic_file.h"
#include "lib/hostconf.h"
#include "lib/limits.h"

static char dir[32], path[64];

static int dir_set_up(void **state)
{
	strcpy(dir, "conf-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/host.yaml", dir);
	return 0;
}

static int dir_tear_down(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static int read_text(const char *text, struct hostconf *conf, struct err *err)
{
	assert_int_equal(atomic_file_write(path, text, strlen(text), 0644, err), 0);
	return hostconf_read(path, conf, err);
}

static void test_least(void **state)
{
	struct hostconf conf = {0};
	struct err err = {0};

	assert_int_equal(read_text("name: hostA\naddress: 10.0.0.1\n", &conf, &err), 0);
	assert_string_equal(conf.name, "hostA");
	assert_string_equal(conf.address, "10.0.0.1");
	assert_string_equal(conf.bridge, "gbr0");
	assert_string_equal(conf.uplink, "");
	assert_string_equal(conf.accel, "auto");
	assert_string_equal(conf.qemu_binary, "qemu-system-x86_64");
	assert_string_equal(conf.watchdog, "");
	assert_int_equal(conf.watchdog_timeout_s, 10);
	assert_int_equal(conf.memory_reserve_mib, 512);
	assert_int_equal(conf.memory_mib, 0);
	hostconf_free(&conf);
	assert_null(conf.name);
}

static void test_all(void **state)
{
	struct hostconf conf = {0};
	struct err err = {0};

	assert_int_equal(read_text("# a comment\nname: \"h.b-1\"\naddress: fd00::7\nbridge: br7\nuplink: eth0\naccel: tcg\n"
				   "memory_reserve_mib: 0\nmemory_mib: 2048\ncpus: 3\nqemu_binary: /opt/qemu\nwatchdog: /dev/watchdog1\n"
				   "watchdog_timeout_s: 6\n", &conf, &err), 0);
	assert_string_equal(conf.watchdog, "/dev/watchdog1");
	assert_int_equal(conf.watchdog_timeout_s, 6);
	assert_string_equal(conf.name, "h.b-1");
	assert_int_equal(conf.memory_reserve_mib, 0); /* written, so not the default */
	assert_int_equal(conf.memory_mib, 2048);
	assert_int_equal(conf.cpus, 3);
	assert_string_equal(conf.qemu_binary, "/opt/qemu");
	hostconf_free(&conf);
}

static void test_errors_name_the_line(void **state)
{
	static const struct { const char *text, *error; } cases[] = {
		{"name: a\naddress: 10.0.0.1\nbrigde: x\n", "line 3: Unexpected key: brigde"},
		{"name: a\naddress: 10.0.0.1\nmemory_mib: lots\n", "line 3: Invalid uint64_t value: 'lots'"},
		{"name: a\naddress: 10.0.0.1\n\ncpus: -2\n", "line 4: Invalid UINT value: '-2'"},
		{"name: a\naddress: 10.0.0.1\ncpus: 99999999999\n", "line 3: Invalid UINT value: '99999999999'"},
		{"name: a\naddress: 10.0.0.1\nname: b\n", "line 3: Mapping field already seen: name"},
		{"name: a\n", "Missing required mapping field: address"},
		{"address: 10.0.0.1\n", "Missing required mapping field: name"},
		{"", "is empty: 'name' and 'address' are needed"},
		{"# nothing\n", "is empty: 'name' and 'address' are needed"},
		{"- a\n", "Expecting MAPPING"},
		{"name: a\naddress: somewhere\n", "line 2: address: 'somewhere' is not an IP address of this host"},
		{"address: 10.0.0.1\nname: a b\n", "line 2: name: 'a b' is not 1 to 63 letters"},
		{"name: a\naccel: xen\naddress: 10.0.0.1\n", "line 2: accel: 'xen' is not auto, kvm or tcg"},
		{"name: a\naddress: 10.0.0.1\nbridge: abridgenamethatistoolong\n", "line 3: bridge: "},
		{"name: a\naddress: 10.0.0.1\nwatchdog: softdog\n", "line 3: watchdog: 'softdog' is not the absolute path"},
		{"name: a\naddress: 10.0.0.1\nwatchdog_timeout_s: 11\n", "line 3: watchdog_timeout_s: '11' is not 5 to 10 seconds"},
		{"name: a\naddress: 10.0.0.1\nwatchdog_timeout_s: 4\n", "line 3: watchdog_timeout_s: '4' is not 5 to 10"},
		{"name: \"a\naddress: 10.0.0.1\n", ""},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct hostconf conf = {0};
		struct err err = {0};

		assert_int_equal(read_text(cases[i].text, &conf, &err), -EINVAL);
		assert_null(conf.name);
		if (!strstr(err.text, cases[i].error) || !strstr(err.text, path))
			fail_msg("%zu: '%s' is not in '%s'", i, cases[i].error, err.text);
	}
}

static void test_missing_and_huge(void **state)
{
	struct hostconf conf = {0};
	struct err err = {0};
	char *huge = mem_alloc(LIMIT_HOSTCONF_BYTES + 2);

	unlink(path);
	assert_int_equal(hostconf_read(path, &conf, &err), -ENOENT);
	memset(huge, '#', LIMIT_HOSTCONF_BYTES + 1);
	assert_int_equal(read_text(huge, &conf, &err), -EFBIG);
	free(huge);
}

static void test_written_is_read(void **state)
{
	struct hostconf conf = {.name = "hostA", .address = "10.0.0.1", .uplink = "eth0", .memory_mib = 7,
				.memory_reserve_mib = 100, .qemu_binary = "/odd \"path\"\\x\t", .watchdog = "/dev/watchdog"};
	struct hostconf back = {0};
	struct err err = {0};

	assert_int_equal(hostconf_write(path, &conf, &err), 0);
	if (hostconf_read(path, &back, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(back.name, "hostA");
	assert_string_equal(back.uplink, "eth0");
	assert_string_equal(back.bridge, "gbr0");
	assert_string_equal(back.accel, "auto");
	assert_string_equal(back.qemu_binary, conf.qemu_binary);
	assert_string_equal(back.watchdog, "/dev/watchdog");
	assert_int_equal(back.watchdog_timeout_s, 10);
	assert_int_equal(back.memory_mib, 7);
	assert_int_equal(back.memory_reserve_mib, 100);
	hostconf_free(&back);
}

/* ---- atomic_file ---- */

static void test_file_write_and_read(void **state)
{
	struct buf got = {0};
	struct err err = {0};
	struct stat st;

	assert_int_equal(atomic_file_write(path, "first", 5, 0640, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(atomic_file_write(path, "2nd", 3, 0600, &err), 0);
	buf_append(&got, ">", 1);
	assert_int_equal(atomic_file_read(path, 3, &got, &err), 0);
	assert_string_equal(buf_str(&got), ">2nd");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(atomic_file_read(path, 2, &got, &err), -EFBIG);
	assert_int_equal(got.len, 4);
	assert_int_equal(atomic_file_write(path, NULL, 0, 0600, &err), 0);
	assert_int_equal(atomic_file_read(path, 2, &got, &err), 0);
	assert_int_equal(got.len, 4);
	buf_free(&got);
}

static unsigned files_in_dir(void)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void test_file_failure_leaves_the_old(void **state)
{
	struct buf got = {0};
	struct err err = {0};
	char sub[80];

	assert_int_equal(atomic_file_write(path, "old", 3, 0600, &err), 0);
	/* A folder in the file's place: the rename fails, after everything else worked. */
	snprintf(sub, sizeof(sub), "%s/sub", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
	assert_int_equal(atomic_file_write(sub, "new", 3, 0600, &err), -EISDIR);
	assert_non_null(strstr(err.text, sub));
	assert_int_equal(files_in_dir(), 2); /* nothing temporary is left */
	rmdir(sub);
	assert_int_equal(atomic_file_write("no-such-folder/x", "new", 3, 0600, &err), -ENOENT);
	assert_int_equal(atomic_file_read(path, 10, &got, &err), 0);
	assert_string_equal(buf_str(&got), "old");
	buf_free(&got);
}

static void test_make_dirs(void **state)
{
	struct err err = {0};
	char deep[80];
	struct stat st;

	snprintf(deep, sizeof(deep), "%s/a/b", dir);
	assert_int_equal(path_make_dirs(deep, 0700, &err), 0);
	assert_int_equal(path_make_dirs(deep, 0700, &err), 0);
	assert_int_equal(stat(deep, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	rmdir(deep);
	assert_int_equal(atomic_file_write(deep, "x", 1, 0600, &err), 0);
	assert_int_equal(path_make_dirs(deep, 0700, &err), -ENOTDIR);
	unlink(deep);
	snprintf(deep, sizeof(deep), "%s/a", dir);
	rmdir(deep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_least),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_errors_name_the_line),
		cmocka_unit_test(test_missing_and_huge),
		cmocka_unit_test(test_written_is_read),
		cmocka_unit_test(test_file_write_and_read),
		cmocka_unit_test(test_file_failure_leaves_the_old),
		cmocka_unit_test(test_make_dirs),
	};
	return cmocka_run_group_tests(tests, dir_set_up, dir_tear_down);
}

/* Bridges and taps in a network namespace of the test's own: nothing of the machine is touched. Needs root. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
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
#include <unistd.h>

#include <cmocka.h>

#include "network/bridge.h"

static int enter_namespace(void **state)
{
	if (unshare(CLONE_NEWNET) < 0) {
		print_message("skipped: no network namespace: %s\n", strerror(errno));
		exit(77);
	}
	return 0;
}

/* /sys shows the namespace that mounted it, so the kernel is asked by netlink. */
static bool there(const char *name)
{
	char **names = NULL;
	size_t n = 0;
	bool found = false;

	assert_int_equal(tap_list(name, &names, &n, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		found |= !strcmp(names[i], name);
		free(names[i]);
	}
	free(names);
	return found;
}

static void test_bridge_is_made_once_and_kept(void **state)
{
	struct err err = {0};

	assert_false(bridge_exists("gbr0"));
	assert_int_equal(bridge_ensure("gbr0", NULL, &err), 0);
	assert_int_equal(bridge_ensure("gbr0", "", &err), 0);
	assert_true(bridge_exists("gbr0"));
}

static void test_uplink_that_is_not_there_is_named(void **state)
{
	struct err err = {0};

	assert_int_equal(bridge_ensure("gbr0", "nic9", &err), -ENODEV);
	assert_non_null(strstr(err.text, "nic9"));
}

static void test_name_that_is_too_long_is_refused(void **state)
{
	struct err err = {0};

	assert_int_equal(bridge_ensure("a-name-of-sixteen", NULL, &err), -EINVAL);
	assert_int_equal(bridge_ensure("", NULL, &err), -EINVAL);
}

static void test_interface_that_is_no_bridge_is_refused(void **state)
{
	struct err err = {0};

	assert_int_equal(bridge_ensure("lo", NULL, &err), -EEXIST);
	assert_non_null(strstr(err.text, "no bridge"));
}

static void test_tap_lives_and_dies(void **state)
{
	struct err err = {0};

	assert_int_equal(tap_create("vif1.0", "gbr0", 0, &err), 0);
	assert_int_equal(tap_create("vif1.0", "gbr0", 1400, &err), 0);
	assert_true(there("vif1.0"));
	assert_int_equal(tap_delete("vif1.0", &err), 0);
	assert_false(there("vif1.0"));
	assert_int_equal(tap_delete("vif1.0", &err), 0);
}

static void test_tap_without_its_bridge_leaves_nothing(void **state)
{
	struct err err = {0};

	assert_int_equal(tap_create("vif2.0", "nobridge", 0, &err), -ENODEV);
	assert_non_null(strstr(err.text, "nobridge"));
	assert_false(there("vif2.0"));
}

static void test_tap_in_use_is_refused(void **state)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	struct err err = {0};
	int fd = open("/dev/net/tun", O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(tap_create("vif3.0", "gbr0", 0, &err), 0);
	strcpy(request.ifr_name, "vif3.0");
	assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
	assert_int_equal(tap_create("vif3.0", "gbr0", 0, &err), -EBUSY);
	assert_true(there("vif3.0"));
	close(fd);
	assert_int_equal(tap_delete("vif3.0", &err), 0);
}

static void address_of(const char *ifname, unsigned char ret[6])
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	strcpy(request.ifr_name, ifname);
	assert_int_equal(ioctl(fd, SIOCGIFHWADDR, &request), 0);
	memcpy(ret, request.ifr_hwaddr.sa_data, 6);
	close(fd);
}

/* A tap that belongs to nobody stands for a network card. */
static void make_card(const char *ifname)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR);

	strcpy(request.ifr_name, ifname);
	assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
	assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
	close(fd);
}

static void test_uplink_is_part_of_one_bridge(void **state)
{
	struct err err = {0};

	make_card("nic0");
	assert_int_equal(bridge_ensure("gbr0", "nic0", &err), 0);
	assert_int_equal(bridge_ensure("gbr0", "nic0", &err), 0);
	assert_int_equal(bridge_ensure("gbr1", "nic0", &err), -EBUSY);
	assert_non_null(strstr(err.text, "nic0"));
}

static void test_taps_do_not_change_the_address_of_the_bridge(void **state)
{
	unsigned char before[6], after[6], tap[6];
	struct err err = {0};
	char name[16];

	make_card("nic2");
	assert_int_equal(bridge_ensure("gbr2", "nic2", &err), 0);
	address_of("gbr2", before);
	for (int i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "vif9.%d", i);
		assert_int_equal(tap_create(name, "gbr2", 0, &err), 0);
		address_of(name, tap);
		assert_int_equal(tap[0], 0xfe);
		address_of("gbr2", after);
		assert_memory_equal(before, after, 6);
	}
	for (int i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "vif9.%d", i);
		assert_int_equal(tap_delete(name, &err), 0);
	}
}

static void test_only_taps_are_listed_and_deleted(void **state)
{
	struct err err = {0};

	assert_int_equal(bridge_ensure("vifbr", NULL, &err), 0);
	assert_false(there("vifbr"));
	assert_int_equal(tap_delete("vifbr", &err), -EINVAL);
	assert_int_equal(tap_delete("lo", &err), -EINVAL);
	assert_true(bridge_exists("vifbr"));
	assert_true(tap_create("vifbr", "gbr0", 0, &err) < 0);
	assert_true(bridge_exists("vifbr"));
}

static void test_names_are_stable_and_short(void **state)
{
	char *a = tap_name("0f1e2d3c-0000-4000-8000-000000000001", 0), *b = tap_name("0f1e2d3c-0000-4000-8000-000000000001", 0);
	char *c = tap_name("0f1e2d3c-0000-4000-8000-000000000002", 0), *d = tap_name("0f1e2d3c-0000-4000-8000-000000000001", 99);

	assert_string_equal(a, b);
	assert_string_not_equal(a, c);
	assert_true(strlen(d) < IFNAMSIZ);
	free(a);
	free(b);
	free(c);
	free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bridge_is_made_once_and_kept),
		cmocka_unit_test(test_uplink_that_is_not_there_is_named),
		cmocka_unit_test(test_name_that_is_too_long_is_refused),
		cmocka_unit_test(test_interface_that_is_no_bridge_is_refused),
		cmocka_unit_test(test_tap_lives_and_dies),
		cmocka_unit_test(test_tap_without_its_bridge_leaves_nothing),
		cmocka_unit_test(test_tap_in_use_is_refused),
		cmocka_unit_test(test_uplink_is_part_of_one_bridge),
		cmocka_unit_test(test_taps_do_not_change_the_address_of_the_bridge),
		cmocka_unit_test(test_only_taps_are_listed_and_deleted),
		cmocka_unit_test(test_names_are_stable_and_short),
	};

	return cmocka_run_group_tests(tests, enter_namespace, NULL);
}

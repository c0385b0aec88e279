/* DomainSpec: what is filled in, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "hypervisor/spec.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"

static const uint8_t zeros[64];

static Gantry__DomainSpec *spec_new(void)
{
	Gantry__DomainSpec *spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);

	pb_set_string(&spec->name, "web1");
	spec->memory_bytes = 64 << 20;
	return spec;
}

static void add_disk(Gantry__DomainSpec *spec, const char *vdev, const char *path, bool readonly)
{
	Gantry__Disk *disk = PB_NEW(Gantry__Disk, gantry__disk__init);

	pb_set_string(&disk->vdev, vdev);
	pb_set_string(&disk->path, path);
	disk->readonly = readonly;
	PB_APPEND(spec, disks, disk);
}

static void add_nic(Gantry__DomainSpec *spec, const char *mac)
{
	Gantry__Nic *nic = PB_NEW(Gantry__Nic, gantry__nic__init);

	pb_set_string(&nic->mac, mac);
	PB_APPEND(spec, nics, nic);
}

static void test_complete(void **state)
{
	uint8_t random[64];
	Gantry__DomainSpec *spec = spec_new();

	for (size_t i = 0; i < sizeof(random); i++)
		random[i] = (uint8_t)(0xf0 + i);
	add_nic(spec, "");
	add_nic(spec, "00:16:3e:aa:bb:cc");
	add_nic(spec, "");
	spec_complete(spec, random);
	assert_string_equal(spec->uuid, "f0f1f2f3-f4f5-46f7-b8f9-fafbfcfdfeff");
	assert_string_equal(spec->nics[0]->mac, "00:16:3e:00:01:02");
	assert_string_equal(spec->nics[1]->mac, "00:16:3e:aa:bb:cc");
	assert_string_equal(spec->nics[2]->mac, "00:16:3e:06:07:08");
	assert_string_equal(spec->machine, "pc-q35-7.2");
	assert_string_equal(spec->boot_order, "cd");
	assert_int_equal(spec->vcpus, 1);
	assert_int_equal(spec->max_vcpus, 1);
	assert_int_equal(spec->max_memory_bytes, 64 << 20);
	assert_int_equal(spec->cpu_weight, 256);
	assert_int_equal(spec_check(spec, NULL), 0);
	gantry__domain_spec__free_unpacked(spec, NULL);
}

static void test_complete_keeps_what_is_there(void **state)
{
	Gantry__DomainSpec *spec = spec_new();

	add_nic(spec, "00:16:3e:aa:bb:cc");
	spec_complete(spec, zeros);
	Gantry__DomainSpec *before = pb_clone(spec);
	spec_complete(spec, (const uint8_t[64]){1, 2, 3});
	assert_true(pb_equal(spec, before));
	gantry__domain_spec__free_unpacked(before, NULL);
	gantry__domain_spec__free_unpacked(spec, NULL);
}

static void test_complete_makes_macs_unique(void **state)
{
	Gantry__DomainSpec *spec = spec_new();

	for (int i = 0; i < LIMIT_DOMAIN_NICS; i++)
		add_nic(spec, "");
	spec_complete(spec, zeros);
	assert_string_equal(spec->nics[15]->mac, "00:16:3e:00:00:0f");
	assert_int_equal(spec_check(spec, NULL), 0);
	gantry__domain_spec__free_unpacked(spec, NULL);
}

static void change_name(Gantry__DomainSpec *s) { pb_set_string(&s->name, "a/b"); }
static void change_name_dot(Gantry__DomainSpec *s) { pb_set_string(&s->name, ".a"); }
static void change_name_number(Gantry__DomainSpec *s) { pb_set_string(&s->name, "12"); }
static void change_name_uuid(Gantry__DomainSpec *s) { pb_set_string(&s->name, s->uuid); }
static void change_name_long(Gantry__DomainSpec *s)
{
	char name[LIMIT_NAME_CHARS + 2];

	memset(name, 'a', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	pb_set_string(&s->name, name);
}
static void change_uuid(Gantry__DomainSpec *s) { pb_set_string(&s->uuid, "x"); }
static void change_memory(Gantry__DomainSpec *s) { s->memory_bytes = 0; }
static void change_memory_odd(Gantry__DomainSpec *s) { s->memory_bytes++; }
static void change_maxmem(Gantry__DomainSpec *s) { s->max_memory_bytes = 1 << 20; }
static void change_vcpus(Gantry__DomainSpec *s) { s->vcpus = 2; }
static void change_many_vcpus(Gantry__DomainSpec *s) { s->max_vcpus = 256; }
static void change_kernel(Gantry__DomainSpec *s) { pb_set_string(&s->kernel, "k"); }
static void change_ramdisk(Gantry__DomainSpec *s) { pb_set_string(&s->ramdisk, "/r"); }
static void change_boot(Gantry__DomainSpec *s) { pb_set_string(&s->boot_order, "a"); }
static void change_vdev(Gantry__DomainSpec *s) { add_disk(s, "foo", "/a", false); }
static void change_no_target(Gantry__DomainSpec *s) { add_disk(s, "xvda", "", false); }
static void change_relative(Gantry__DomainSpec *s) { add_disk(s, "xvda", "a", false); }
static void change_same_vdev(Gantry__DomainSpec *s)
{
	add_disk(s, "xvda", "/a", false);
	add_disk(s, "51712", "/b", false);
}
static void change_same_store(Gantry__DomainSpec *s)
{
	add_disk(s, "xvda", "/a", true);
	add_disk(s, "xvdb", "/a", false);
}
static void change_volume(Gantry__DomainSpec *s)
{
	add_disk(s, "xvda", "", false);
	pb_set_string(&s->disks[0]->pool, "p");
	pb_set_string(&s->disks[0]->volume, "../x");
}
static void change_mac(Gantry__DomainSpec *s) { add_nic(s, "01:16:3e:00:00:01"); }
static void change_same_mac(Gantry__DomainSpec *s)
{
	add_nic(s, "00:16:3e:00:00:01");
	add_nic(s, "00:16:3e:00:00:01");
}
static void change_bridge(Gantry__DomainSpec *s)
{
	add_nic(s, "00:16:3e:00:00:01");
	pb_set_string(&s->nics[0]->bridge, "0123456789abcdef");
}

static void test_check_refuses(void **state)
{
	static const struct {
		void (*change)(Gantry__DomainSpec *);
		const char *want;
	} rows[] = {
		{change_name, "domain 'a/b': name: has to be made of"},
		{change_name_dot, "domain '.a': name: has to be made of"},
		{change_name_number, "domain '12': name: is a number"},
		{change_name_uuid, "name: looks like a uuid"},
		{change_name_long, "at most 200 characters"},
		{change_uuid, "domain 'web1': uuid: 'x' is not of the form"},
		{change_memory, "memory: is missing; add a line like memory = 1024"},
		{change_memory_odd, "memory: 67108865 bytes are no whole number of MiB"},
		{change_maxmem, "maxmem: 1 MiB are less than memory, 64 MiB"},
		{change_vcpus, "maxvcpus: 1 is less than vcpus, 2"},
		{change_many_vcpus, "vcpus: has to be between 1 and 255"},
		{change_kernel, "kernel: 'k' is not an absolute path"},
		{change_ramdisk, "ramdisk: needs kernel"},
		{change_boot, "boot: 'a' has to be made of"},
		{change_vdev, "disk: vdev 'foo' is no disk's name"},
		{change_no_target, "disk xvda: has no target"},
		{change_relative, "disk xvda: 'a' is not an absolute path"},
		{change_same_vdev, "disk: two disks are called xvda"},
		{change_same_store, "disk: xvda and xvdb have the same target, and one of them writes to it"},
		{change_volume, "disk xvda: 'p/../x' is no volume's name"},
		{change_mac, "vif: mac '01:16:3e:00:00:01' is not of the form"},
		{change_same_mac, "vif: two network cards have the mac 00:16:3e:00:00:01"},
		{change_bridge, "names of interfaces have at most 15 characters"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__DomainSpec *spec = spec_new();
		struct err err = {0};
		spec_complete(spec, zeros);
		rows[i].change(spec);
		assert_int_equal(spec_check(spec, &err), -EINVAL);
		assert_int_equal(err.status, GANTRY__STATUS__STATUS_BAD_DATA);
		if (!strstr(err.text, rows[i].want))
			assert_string_equal(err.text, rows[i].want);
		gantry__domain_spec__free_unpacked(spec, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_complete),
		cmocka_unit_test(test_complete_keeps_what_is_there),
		cmocka_unit_test(test_complete_makes_macs_unique),
		cmocka_unit_test(test_check_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* QEMU's arguments: what they say for each kind of domain, and that QEMU itself takes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/qemu_args.h"
#include "lib/buf.h"
#include "proto/pb.h"

#define GIB (1ull << 30)

static Gantry__DomainSpec *spec_new(Gantry__DomainType type)
{
	Gantry__DomainSpec *s = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);

	pb_set_string(&s->name, "web1");
	pb_set_string(&s->uuid, "01234567-89ab-cdef-0123-456789abcdef");
	pb_set_string(&s->machine, "pc-q35-7.2");
	pb_set_string(&s->boot_order, "cd");
	s->type = type;
	s->memory_bytes = s->max_memory_bytes = GIB / 8;
	s->vcpus = s->max_vcpus = 1;
	return s;
}

static Gantry__Disk *add_disk(Gantry__DomainSpec *s, const char *vdev, Gantry__DiskFormat format)
{
	Gantry__Disk *d = PB_NEW(Gantry__Disk, gantry__disk__init);

	pb_set_string(&d->vdev, vdev);
	d->format = format;
	PB_APPEND(s, disks, d);
	return d;
}

static Gantry__Nic *add_nic(Gantry__DomainSpec *s, const char *mac, const char *model)
{
	Gantry__Nic *n = PB_NEW(Gantry__Nic, gantry__nic__init);

	pb_set_string(&n->mac, mac);
	pb_set_string(&n->model, model);
	PB_APPEND(s, nics, n);
	return n;
}

static struct qemu_args_host host_tcg(const struct qemu_args_disk *disks, const struct qemu_args_nic *nics)
{
	return (struct qemu_args_host){.binary = "qemu-system-x86_64", .accel = "tcg", .qemu_version = 0x070216, .run_dir = "/run/g/u", .log_dir = "/var/log/g",
				       .disks = disks, .nics = nics};
}

/* All arguments in one line, to be searched. */
static char *joined(const Gantry__DomainSpec *s, const struct qemu_args_host *host)
{
	struct buf out = {0};
	struct err err = {0};
	char **v;

	if (qemu_args_build(s, host, &v, &err) < 0)
		fail_msg("%s", err.text);
	for (char **p = v; *p; p++)
		buf_printf(&out, "%s ", *p);
	strv_free(v);
	buf_append(&out, "", 1);
	return (char *)out.data;
}

#define HAS(text, part)                                                                                                                              \
	do {                                                                                                                                         \
		if (!strstr(text, part))                                                                                                             \
			fail_msg("'%s' is missing in: %s", part, text);                                                                              \
	} while (0)
#define HAS_NOT(text, part)                                                                                                                          \
	do {                                                                                                                                         \
		if (strstr(text, part))                                                                                                              \
			fail_msg("'%s' should not be in: %s", part, text);                                                                           \
	} while (0)

static void test_every_domain(void **state)
{
	Gantry__DomainSpec *s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV);
	struct qemu_args_host host = host_tcg(NULL, NULL);
	char *text = joined(s, &host);

	HAS(text, "qemu-system-x86_64 -name guest=web1,process=qemu:web1,debug-threads=on -uuid 01234567-89ab-cdef-0123-456789abcdef -S ");
	HAS(text, "-no-user-config -nodefaults -sandbox on,");
	HAS(text, "-machine pc-q35-7.2,");
	HAS(text, "path=/run/g/u/qmp.sock,server=on,wait=off -mon chardev=qmp,mode=control");
	HAS(text, "path=/run/g/u/oob.sock,server=on,wait=off -mon chardev=oob,mode=control");
	HAS(text, "path=/run/g/u/console.sock,server=on,wait=off,logfile=/var/log/g/console-web1.log,logappend=on -serial chardev:console");
	HAS(text, "-display none");
	HAS(text, "\"pvpanic\"");
	HAS(text, "virtio-balloon-pci");
	HAS(text, "panic=shutdown,watchdog=pause");
	HAS(text, "path=/run/g/u/agent.sock,server=on,wait=off");
	HAS(text, "{\"driver\":\"virtserialport\",\"id\":\"agent\",\"bus\":\"serial.0\",\"chardev\":\"agent\",\"name\":\"org.qemu.guest_agent.0\"}");
	HAS(text, "{\"driver\":\"i6300esb\",\"id\":\"watchdog\",\"bus\":\"pcie.0\",\"addr\":\"7.0\"}");
	HAS_NOT(text, "-incoming");
	HAS_NOT(text, "-vnc");
	HAS_NOT(text, "VGA");
	free(text);
	host.incoming = true;
	text = joined(s, &host);
	HAS(text, "-incoming defer");
	free(text);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_memory_under_tcg(void **state)
{
	Gantry__DomainSpec *s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV);

	s->memory_bytes = 2 * GIB;
	assert_int_equal(qemu_args_ram_bytes(s, "tcg", 0x070216), 2 * GIB - 8192);
	assert_int_equal(qemu_args_ram_bytes(s, "tcg", 0x080204), 2 * GIB - 8192);
	assert_int_equal(qemu_args_ram_bytes(s, "tcg", 0x090000), 2 * GIB);
	assert_int_equal(qemu_args_ram_bytes(s, "kvm", 0x070216), 2 * GIB);
	s->memory_bytes = 2 * GIB + 1;
	assert_int_equal(qemu_args_ram_bytes(s, "kvm", 0x070216), 2 * GIB + 8192);
	assert_int_equal(qemu_args_ram_bytes(s, "tcg", 0x070216), 2 * GIB + 8192);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_pv_disks(void **state)
{
	static const struct qemu_args_disk disks[] = {{"/vol/b,1.qcow2"}, {"nfs://10.0.0.9/export/a.raw"}, {"/dev/vg/lv"}, {NULL}};
	Gantry__DomainSpec *s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV);
	struct qemu_args_host host = host_tcg(disks, NULL);
	Gantry__Disk *d;
	char *text;

	add_disk(s, "xvdb", GANTRY__DISK_FORMAT__DISK_FORMAT_QCOW2);
	add_disk(s, "xvda1", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW)->discard = true;
	add_disk(s, "sdc", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW)->readonly = true;
	d = add_disk(s, "xvdd", GANTRY__DISK_FORMAT__DISK_FORMAT_EMPTY);
	d->cdrom = d->empty = true;
	text = joined(s, &host);
	HAS(text, "{\"driver\":\"file\",\"filename\":\"/vol/b,1.qcow2\",\"node-name\":\"disk0-file\",\"read-only\":false,\"discard\":\"ignore\",\"cache\":{\"direct\":true,\"no-flush\":false}}");
	HAS(text, "{\"driver\":\"qcow2\",\"node-name\":\"disk0\",\"file\":\"disk0-file\"");
	HAS(text, "{\"driver\":\"nfs\",\"server\":{\"type\":\"inet\",\"host\":\"10.0.0.9\"},\"path\":\"/export/a.raw\",\"node-name\":\"disk1-file\",\"read-only\":false,\"discard\":\"unmap\"");
	HAS(text, "{\"driver\":\"host_device\",\"filename\":\"/dev/vg/lv\",\"node-name\":\"disk2-file\",\"read-only\":true");
	/* The guest's order is that of the names: xvda1 comes first. */
	HAS(text, "{\"id\":\"vdev-xvda1\",\"driver\":\"virtio-blk-pci\",\"bus\":\"pcie.0\",\"addr\":\"10.0\",\"drive\":\"disk1\",\"rerror\":\"stop\",\"werror\":\"stop\",");
	HAS(text, "{\"id\":\"vdev-xvdb\",\"driver\":\"virtio-blk-pci\",\"bus\":\"pcie.0\",\"addr\":\"11.0\",\"drive\":\"disk0\",\"rerror\":\"stop\",\"werror\":\"stop\",\"serial\"");
	HAS(text, "{\"id\":\"vdev-sdc\",\"driver\":\"virtio-blk-pci\",\"bus\":\"pcie.0\",\"addr\":\"12.0\"");
	HAS(text, "{\"id\":\"vdev-xvdd\",\"driver\":\"scsi-cd\",\"bus\":\"scsi.0\",\"scsi-id\":3,\"lun\":0,\"bootindex\":101}");
	free(text);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_hvm(void **state)
{
	static const struct qemu_args_disk disks[] = {{"/v/a"}, {"/v/cd.iso"}, {"/v/s"}, {"/v/x"}};
	static const struct qemu_args_nic nics[] = {{"gtap0"}, {"gtap1"}};
	Gantry__DomainSpec *s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM);
	Gantry__Display *display = PB_NEW(Gantry__Display, gantry__display__init);
	struct qemu_args_host host = host_tcg(disks, nics);
	char *text;

	pb_set_string(&s->boot_order, "dnc");
	add_disk(s, "hda", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW);
	add_disk(s, "hdc", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW)->cdrom = true;
	add_disk(s, "sda", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW);
	add_disk(s, "xvdb", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW);
	add_nic(s, "00:16:3e:00:00:01", "");
	add_nic(s, "00:16:3e:00:00:02", "rtl8139");
	display->vnc = true;
	display->vnc_display = 7;
	pb_set_string(&display->vnc_password, "hidden");
	PB_APPEND(s, displays, display);
	text = joined(s, &host);
	HAS(text, "\"driver\":\"ide-hd\",\"bus\":\"ide.0\",\"unit\":0,\"drive\":\"disk0\"");
	HAS(text, "\"driver\":\"ide-cd\",\"bus\":\"ide.2\",\"unit\":0,\"drive\":\"disk1\",\"rerror\":\"stop\",\"werror\":\"stop\",\"bootindex\":1}");
	HAS(text, "\"driver\":\"scsi-hd\"");
	HAS(text, "\"driver\":\"virtio-blk-pci\"");
	HAS(text, "{\"driver\":\"e1000e\",\"id\":\"nic0\",\"netdev\":\"net0\",\"mac\":\"00:16:3e:00:00:01\",\"bus\":\"pcie.0\",\"addr\":\"8.0\",\"bootindex\":101}");
	HAS(text, "{\"driver\":\"rtl8139\"");
	HAS(text, "{\"type\":\"tap\",\"id\":\"net1\",\"ifname\":\"gtap1\",\"script\":\"no\",\"downscript\":\"no\"}");
	HAS(text, "-vnc 127.0.0.1:7,password=on");
	HAS(text, "\"VGA\"");
	HAS_NOT(text, "hidden");
	free(text);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_many_disks_share_slots(void **state)
{
	struct qemu_args_disk disks[64];
	Gantry__DomainSpec *s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV);
	struct qemu_args_host host = host_tcg(disks, NULL);
	char vdev[16], *text;

	for (int i = 0; i < 64; i++) {
		snprintf(vdev, sizeof(vdev), i < 26 ? "xvd%c" : "xvd%c%c", i < 26 ? 'a' + i : 'a' + i / 26 - 1, 'a' + i % 26);
		add_disk(s, vdev, GANTRY__DISK_FORMAT__DISK_FORMAT_RAW);
		disks[i].uri = "/v/x";
	}
	text = joined(s, &host);
	HAS(text, "\"id\":\"vdev-xvda\",\"driver\":\"virtio-blk-pci\",\"bus\":\"pcie.0\",\"addr\":\"10.0\",\"multifunction\":true");
	HAS(text, "\"id\":\"vdev-xvdf\",\"driver\":\"virtio-blk-pci\",\"bus\":\"pcie.0\",\"addr\":\"11.0\"");
	HAS(text, "\"id\":\"vdev-xvdbl\",\"driver\":\"virtio-blk-pci\",\"bus\":\"pcie.0\",\"addr\":\"1c.3\"");
	free(text);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void expect_refusal(Gantry__DomainSpec *s, const char *uri, const char *part)
{
	struct qemu_args_disk disk = {uri};
	struct qemu_args_nic nic = {"gtap0"};
	struct qemu_args_host host = host_tcg(&disk, &nic);
	struct err err = {0};
	char **v;

	assert_int_equal(qemu_args_build(s, &host, &v, &err), -EINVAL);
	HAS(err.text, "web1");
	HAS(err.text, part);
	gantry__domain_spec__free_unpacked(s, NULL);
}

static void test_refusals(void **state)
{
	Gantry__DomainSpec *s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM);

	add_disk(s, "hdg", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW);
	expect_refusal(s, "/v/a", "disk hdg: the machine has only hda to hdf");
	s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM);
	add_disk(s, "hda", GANTRY__DISK_FORMAT__DISK_FORMAT_EMPTY);
	expect_refusal(s, NULL, "only a cdrom");
	s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV);
	add_disk(s, "xvda", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW);
	expect_refusal(s, "nfs://", "neither an absolute path nor nfs://");
	s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV);
	add_disk(s, "xvda", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW);
	expect_refusal(s, "rbd:pool/x", "neither an absolute path nor nfs://");
	s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM);
	add_nic(s, "00:16:3e:00:00:01", "token-ring");
	expect_refusal(s, NULL, "vif model 'token-ring' is unknown");
	s = spec_new(GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM);
	pb_set_string(&s->firmware, "coreboot");
	expect_refusal(s, NULL, "firmware 'coreboot' is unknown");
}

/* ---- QEMU itself ---- */

/* QEMU with these arguments and a QMP script on its stdin: exit status, and what it said. */
static int run_qemu(char **v, char *said, size_t size)
{
	static const char script[] = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-block\"}\n{\"execute\":\"quit\"}\n";
	int in[2], out[2], status;
	size_t n = 0;
	ssize_t got;
	pid_t pid = -1;

	if (pipe(in) < 0 || pipe(out) < 0 || (pid = fork()) < 0)
		fail();
	if (pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		close(in[1]);
		alarm(20);
		execvp(v[0], v);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	assert_int_equal(write(in[1], script, strlen(script)), (ssize_t)strlen(script));
	while (n + 1 < size && (got = read(out[0], said + n, size - n - 1)) > 0)
		n += (size_t)got;
	said[n] = '\0';
	close(in[1]);
	close(out[0]);
	waitpid(pid, &status, 0);
	return status;
}

static void make_image(char *ret, size_t size, const char *dir, const char *name)
{
	FILE *f;

	snprintf(ret, size, "%s/%s", dir, name);
	f = fopen(ret, "w");
	assert_non_null(f);
	assert_int_equal(ftruncate(fileno(f), 1 << 20), 0);
	fclose(f);
}

static void test_qemu_takes_them(void **state)
{
	static const Gantry__DomainType types[] = {GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM, GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV, GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PVH};
	static const char *const machines[] = {"pc-q35-7.2", "pc-i440fx-7.2", ""};
	char dir[] = "/tmp/test_qemu_args.XXXXXX", path[80], shared[80], said[65536];

	assert_non_null(mkdtemp(dir));
	make_image(path, sizeof(path), dir, "a,b.raw");
	make_image(shared, sizeof(shared), dir, "read-only.raw");
	for (int i = 0; i < 3; i++) {
		Gantry__DomainSpec *s = spec_new(types[i]);
		struct qemu_args_disk disks[20] = {{path}, {shared}, {NULL}};
		struct qemu_args_host host = host_tcg(disks, NULL);
		struct err err = {0};
		char **v, id[16];
		size_t n = 0;
		int status;

		pb_set_string(&s->machine, machines[i]);
		pb_set_string(&s->vga, i == 0 ? "stdvga" : "");
		s->vcpus = 2;
		s->max_vcpus = 4;
		add_disk(s, "hda", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW)->readonly = i != 0; /* AHCI and IDE disks cannot be read-only */
		add_disk(s, "sdb", GANTRY__DISK_FORMAT__DISK_FORMAT_RAW)->readonly = true;
		add_disk(s, "hdc", GANTRY__DISK_FORMAT__DISK_FORMAT_EMPTY)->cdrom = true;
		for (int k = 3; k < (i == 1 ? 20 : 3); k++) {
			snprintf(id, sizeof(id), "xvd%c", 'a' + k);
			disks[k].uri = shared;
			add_disk(s, id, GANTRY__DISK_FORMAT__DISK_FORMAT_RAW)->readonly = true;
		}
		if (i == 0)
			s->disks[1]->cdrom = true;
		host.run_dir = host.log_dir = dir;
		if (qemu_args_build(s, &host, &v, &err) < 0)
			fail_msg("%s", err.text);
		while (v[n])
			n++;
		v = mem_realloc(v, (n + 3) * sizeof(*v));
		v[n] = str_dup("-qmp");
		v[n + 1] = str_dup("stdio");
		v[n + 2] = NULL;
		status = run_qemu(v, said, sizeof(said));
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			fail_msg("QEMU: status %x: %s", (unsigned int)status, said);
		HAS(said, "a,b.raw");
		HAS(said, "vdev-hdc");
		strv_free(v);
		gantry__domain_spec__free_unpacked(s, NULL);
	}
	snprintf(said, sizeof(said), "%s/console-web1.log", dir);
	unlink(said);
	unlink(path);
	unlink(shared);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_domain), cmocka_unit_test(test_memory_under_tcg),	   cmocka_unit_test(test_pv_disks), cmocka_unit_test(test_hvm),
		cmocka_unit_test(test_refusals),     cmocka_unit_test(test_many_disks_share_slots), cmocka_unit_test(test_qemu_takes_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/qemu_args_internal.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "proto/model.pb-c.h"

#define KIB UINT64_C(1024)
#define RAM_ALIGN (8 * KIB)        /* QEMU rounds RAM up to this */
#define TCG_UNSAFE_ALIGN (256 * KIB) /* 64 guest pages: one word of QEMU's dirty bitmap */
#define QEMU_9_0 0x090000u
/* The least that a guest of today asks for (x86-64-v2), and the same on each host until the cluster computes its own. */
#define DEFAULT_CPU_MODEL "Nehalem-v1"
#define DEFAULT_MACHINE "pc-q35-7.2"
#define OVMF_IMAGE "/usr/share/ovmf/OVMF.fd"
#define SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
#define BOOT_KIND_STRIDE 100

void strv_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

static void push(struct qemu_args *a, char *owned)
{
	a->v = mem_realloc(a->v, (a->n + 2) * sizeof(*a->v));
	a->v[a->n++] = owned;
	a->v[a->n] = NULL;
}

void qemu_args__add(struct qemu_args *a, const char *option, const char *fmt, ...)
{
	char *value = NULL;
	va_list args;

	push(a, str_dup(option));
	if (!fmt)
		return;
	va_start(args, fmt);
	if (vasprintf(&value, fmt, args) < 0)
		abort();
	va_end(args);
	push(a, value);
}

void qemu_args__add_json(struct qemu_args *a, const char *option, json_t *object)
{
	push(a, str_dup(option));
	push(a, json_dumps(object, JSON_COMPACT));
	json_decref(object);
}

char *qemu_args__escape(const char *text)
{
	struct buf out = {0};

	for (; *text; text++)
		buf_append(&out, *text == ',' ? ",," : text, *text == ',' ? 2 : 1);
	buf_append(&out, "", 1);
	return (char *)out.data;
}

int qemu_args__put_pci(struct qemu_args *a, json_t *device, int first, int slots, size_t place, size_t total)
{
	size_t per_slot = (total + (size_t)slots - 1) / (size_t)slots;
	char address[16];

	if (per_slot > QEMU_SLOT_FUNCTIONS)
		return err_set_status(a->err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "domain '%s': %zu devices of one kind, at most %d fit",
				      a->spec->name, total, slots * QEMU_SLOT_FUNCTIONS);
	snprintf(address, sizeof(address), "%x.%zx", (unsigned int)first + (unsigned int)(place / per_slot), place % per_slot);
	json_object_set_new(device, "bus", json_string(a->q35 ? "pcie.0" : "pci.0"));
	json_object_set_new(device, "addr", json_string(address));
	if (per_slot > 1)
		json_object_set_new(device, "multifunction", json_true());
	return 0;
}

int qemu_args__bootindex(const Gantry__DomainSpec *spec, char kind, size_t i)
{
	const char *at = strchr(spec->boot_order, kind);

	return at && i < BOOT_KIND_STRIDE ? (int)(at - spec->boot_order) * BOOT_KIND_STRIDE + (int)i + 1 : -1;
}

uint64_t qemu_args_ram_bytes(const Gantry__DomainSpec *spec, const char *accel, uint32_t qemu_version)
{
	uint64_t bytes = (spec->memory_bytes + RAM_ALIGN - 1) / RAM_ALIGN * RAM_ALIGN;

	/* QEMU before 9.0 loses writes of a migrating TCG guest where its dirty bitmap is read a whole word at a time (fixed by
	 * "physmem: Fix migration dirty bitmap coherency with TCG memory access"). Odd sizes take the slow, right path. */
	if (!strcmp(accel, "tcg") && qemu_version < QEMU_9_0 && bytes % TCG_UNSAFE_ALIGN == 0 && bytes > RAM_ALIGN)
		bytes -= RAM_ALIGN;
	return bytes;
}

static void add_machine(struct qemu_args *a)
{
	const Gantry__DomainSpec *spec = a->spec;
	const char *machine = *spec->machine ? spec->machine : DEFAULT_MACHINE;
	const char *model = *spec->cpu_model ? spec->cpu_model : DEFAULT_CPU_MODEL;
	bool kvm = !strcmp(a->host->accel, "kvm");

	qemu_args__add(a, "-machine", "%s,vmport=off,dump-guest-core=off", machine);
	qemu_args__add(a, "-accel", "%s", a->host->accel);
	/* KVM: a host that lacks a feature is found out at the start, not by the guest after a migration. TCG never has them all. */
	qemu_args__add(a, "-cpu", "%s%s", model, kvm ? ",enforce" : "");
	qemu_args__add(a, "-smp", "cpus=%u,maxcpus=%u,sockets=%u,cores=1,threads=1", spec->vcpus, spec->max_vcpus, spec->max_vcpus);
	qemu_args__add(a, "-m", "%" PRIu64 "K", qemu_args_ram_bytes(spec, a->host->accel, a->host->qemu_version) / KIB);
	qemu_args__add(a, "-rtc", "base=%s,driftfix=slew", spec->localtime ? "localtime" : "utc");
	/* The guest's own reboot is QEMU's affair unless the domain shall end by it; a panic ends QEMU and is told by an event. A guest whose
	 * watchdog fires is held, and its owner decides. */
	qemu_args__add(a, "-action", "reboot=%s,shutdown=poweroff,panic=shutdown,watchdog=pause",
		       spec->on_reboot == GANTRY__LIFECYCLE_ACTION__LIFECYCLE_DESTROY ? "shutdown" : "reset");
}

static int add_firmware_and_kernel(struct qemu_args *a)
{
	const Gantry__DomainSpec *spec = a->spec;
	const char *fw = spec->firmware;

	if (!strcmp(fw, "uefi") || !strcmp(fw, "ovmf"))
		qemu_args__add(a, "-bios", "%s", OVMF_IMAGE);
	else if (*fw == '/')
		qemu_args__add(a, "-bios", "%s", fw);
	else if (*fw && strcmp(fw, "bios") && strcmp(fw, "seabios"))
		return err_set_status(a->err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
				      "domain '%s': firmware '%s' is unknown: use bios, uefi or an absolute path", spec->name, fw);
	if (*spec->kernel) {
		qemu_args__add(a, "-kernel", "%s", spec->kernel);
		if (*spec->ramdisk)
			qemu_args__add(a, "-initrd", "%s", spec->ramdisk);
		if (*spec->cmdline)
			qemu_args__add(a, "-append", "%s", spec->cmdline);
	}
	if (spec->rtc_offset_s)
		return err_set_status(a->err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
				      "domain '%s': rtc_timeoffset is not supported; remove it, or use localtime", spec->name);
	return 0;
}

static void add_control(struct qemu_args *a)
{
	_cleanup_free_ char *run = qemu_args__escape(a->host->run_dir), *log = qemu_args__escape(a->host->log_dir);
	_cleanup_free_ char *name = qemu_args__escape(a->spec->name);

	/* Two monitors: the second one, out of band, still answers when the first is frozen by a stalled migration. */
	qemu_args__add(a, "-chardev", "socket,id=qmp,path=%s/qmp.sock,server=on,wait=off", run);
	qemu_args__add(a, "-mon", "chardev=qmp,mode=control");
	qemu_args__add(a, "-chardev", "socket,id=oob,path=%s/oob.sock,server=on,wait=off", run);
	qemu_args__add(a, "-mon", "chardev=oob,mode=control");
	qemu_args__add(a, "-chardev", "socket,id=console,path=%s/console.sock,server=on,wait=off,logfile=%s/console-%s.log,logappend=on", run, log,
		       name);
	qemu_args__add(a, "-serial", "chardev:console");
	qemu_args__add(a, "-chardev", "socket,id=" QEMU_GUEST_AGENT_ID ",path=%s/agent.sock,server=on,wait=off", run);
}

/* The only device of its slot: always fits. */
static void add_alone(struct qemu_args *a, int slot, json_t *device)
{
	qemu_args__put_pci(a, device, slot, 1, 0, 1);
	qemu_args__add_json(a, "-device", device);
}

static void add_common_devices(struct qemu_args *a)
{
	add_alone(a, QEMU_SLOT_BALLOON, json_pack("{s:s, s:s, s:b}", "driver", "virtio-balloon-pci", "id", "balloon", "deflate-on-oom", 1));
	qemu_args__add_json(a, "-device", json_pack("{s:s}", "driver", "pvpanic"));
	add_alone(a, QEMU_SLOT_SERIAL, json_pack("{s:s, s:s}", "driver", "virtio-serial-pci", "id", "serial"));
	qemu_args__add_json(a, "-device", json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "virtserialport", "id", QEMU_GUEST_AGENT_ID, "bus",
						    "serial.0", "chardev", QEMU_GUEST_AGENT_ID, "name", "org.qemu.guest_agent.0"));
	/* It does nothing until the guest starts it. */
	add_alone(a, QEMU_SLOT_WATCHDOG, json_pack("{s:s, s:s}", "driver", "i6300esb", "id", "watchdog"));
}

static void add_identity(struct qemu_args *a)
{
	_cleanup_free_ char *name = qemu_args__escape(a->spec->name);

	qemu_args__add(a, "-name", "guest=%s,process=qemu:%s,debug-threads=on", name, name);
	qemu_args__add(a, "-uuid", "%s", a->spec->uuid);
	qemu_args__add(a, "-S", NULL);
	qemu_args__add(a, "-no-user-config", NULL);
	qemu_args__add(a, "-nodefaults", NULL);
	qemu_args__add(a, "-sandbox", "%s", SANDBOX);
	qemu_args__add(a, "-msg", "timestamp=on");
	qemu_args__add(a, "-display", "none");
	if (a->host->incoming)
		qemu_args__add(a, "-incoming", "defer");
}

int qemu_args_build(const Gantry__DomainSpec *spec, const struct qemu_args_host *host, char ***ret, struct err *err)
{
	struct qemu_args a = {.spec = spec, .host = host, .err = err};
	int rc;

	a.q35 = !*spec->machine || strstr(spec->machine, "q35");
	push(&a, str_dup(host->binary));
	add_identity(&a);
	add_machine(&a);
	rc = add_firmware_and_kernel(&a);
	add_control(&a);
	add_common_devices(&a);
	if (rc == 0)
		rc = qemu_args__display(&a);
	if (rc == 0)
		rc = qemu_args__disks(&a);
	if (rc == 0)
		rc = qemu_args__nics(&a);
	if (rc < 0) {
		strv_free(a.v);
		return rc;
	}
	*ret = a.v;
	return 0;
}

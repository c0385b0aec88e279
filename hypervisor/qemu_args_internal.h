/* The parts of qemu_args_build(), one file a topic. */
#pragma once

#include <jansson.h>

#include "hypervisor/qemu_args.h"

/* PCI slots of the root bus: fixed, so that both sides of a migration agree and a guest keeps its names. Slot 1 is left
 * free for i440fx' own bridge, 0x1f for q35's. */
#define QEMU_SLOT_VGA 0x2
#define QEMU_SLOT_BALLOON 0x3
#define QEMU_SLOT_SCSI 0x4
#define QEMU_SLOT_USB 0x5
#define QEMU_SLOT_SERIAL 0x6
#define QEMU_SLOT_WATCHDOG 0x7
#define QEMU_SLOT_NICS 0x8  /* to 0xf */
#define QEMU_NIC_SLOTS 8
#define QEMU_SLOT_DISKS 0x10 /* to 0x1e */
#define QEMU_DISK_SLOTS 15
#define QEMU_SLOT_FUNCTIONS 8

struct qemu_args {
	const Gantry__DomainSpec *spec;
	const struct qemu_args_host *host;
	struct err *err;
	bool q35;
	char **v;
	size_t n;
};

void qemu_args__add(struct qemu_args *a, const char *option, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* -device, -blockdev and -netdev take JSON, in which no path needs to be escaped. object: stolen. */
void qemu_args__add_json(struct qemu_args *a, const char *option, json_t *object);
/* Puts a PCI device on the root bus: item `place` of `total` in `slots` slots from `first` on, one a slot while they suffice. */
int qemu_args__put_pci(struct qemu_args *a, json_t *device, int first, int slots, size_t place, size_t total);
/* For QEMU's own key=value options: commas doubled. Owner: caller. */
char *qemu_args__escape(const char *text);
/* Place of a device in the firmware's boot order, or -1: kind c (disk), d (cdrom), n (NIC), item i of n of its kind. */
int qemu_args__bootindex(const Gantry__DomainSpec *spec, char kind, size_t i);
bool qemu_args__is_nfs(const char *uri);

int qemu_args__disks(struct qemu_args *a);
int qemu_args__nics(struct qemu_args *a);
int qemu_args__display(struct qemu_args *a);

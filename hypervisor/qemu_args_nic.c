/* Network cards and the screen. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hypervisor/qemu_args_internal.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"

struct word_pair { const char *word, *device; };

/* What xl.cfg calls a card -> what QEMU calls it. */
static const struct word_pair nic_models[] = {
	{"virtio", "virtio-net-pci"}, {"virtio-net", "virtio-net-pci"}, {"virtio-net-pci", "virtio-net-pci"}, {"netfront", "virtio-net-pci"},
	{"e1000", "e1000"},	      {"e1000e", "e1000e"},		{"rtl8139", "rtl8139"},		      {"ne2k_pci", "ne2k_pci"},
	{"pcnet", "pcnet"},	      {"vmxnet3", "vmxnet3"},		{"tulip", "tulip"},		      {"i82559er", "i82559er"},
};

static const struct word_pair screens[] = {
	{"stdvga", "VGA"}, {"std", "VGA"}, {"", "VGA"}, {"cirrus", "cirrus-vga"}, {"qxl", "qxl-vga"}, {"virtio", "virtio-vga"}, {"none", NULL},
};

static const struct word_pair *find_word(const struct word_pair *table, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(table[i].word, word))
			return &table[i];
	return NULL;
}

static int spec_fail(struct qemu_args *a, const char *what, const char *value, const char *remedy)
{
	return err_set_status(a->err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "domain '%s': %s '%s' is unknown: use %s", a->spec->name, what, value,
			      remedy);
}

static const char *nic_word(const Gantry__DomainSpec *spec, const Gantry__Nic *nic)
{
	if (*nic->model)
		return nic->model;
	return spec->type == GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM ? "e1000e" : "virtio";
}

static int add_nic(struct qemu_args *a, size_t i)
{
	const Gantry__Nic *nic = a->spec->nics[i];
	const struct word_pair *model = find_word(nic_models, ARRAY_SIZE(nic_models), nic_word(a->spec, nic));
	const char *ifname = a->host->nics ? a->host->nics[i].ifname : NULL;
	int bootindex = qemu_args__bootindex(a->spec, 'n', i), rc;
	char netdev[32], id[32];
	json_t *device;

	if (!model)
		return spec_fail(a, "vif model", nic->model, "virtio, e1000e, e1000, rtl8139, vmxnet3, pcnet or ne2k_pci");
	if (!ifname)
		return err_set(a->err, EINVAL, "domain '%s': vif %s has no tap", a->spec->name, nic->mac);
	snprintf(netdev, sizeof(netdev), "net%zu", i);
	snprintf(id, sizeof(id), "nic%zu", i);
	device = json_pack("{s:s, s:s, s:s, s:s}", "driver", model->device, "id", id, "netdev", netdev, "mac", nic->mac);
	rc = qemu_args__put_pci(a, device, QEMU_SLOT_NICS, QEMU_NIC_SLOTS, i, a->spec->n_nics);
	if (rc < 0) {
		json_decref(device);
		return rc;
	}
	if (bootindex >= 0)
		json_object_set_new(device, "bootindex", json_integer(bootindex));
	else /* the boot ROM is part of what migrates, and its size differs between hosts */
		json_object_set_new(device, "romfile", json_string(""));
	if (nic->mtu && !strcmp(model->device, "virtio-net-pci"))
		json_object_set_new(device, "host_mtu", json_integer(nic->mtu));
	qemu_args__add_json(a, "-netdev",
			    json_pack("{s:s, s:s, s:s, s:s, s:s}", "type", "tap", "id", netdev, "ifname", ifname, "script", "no", "downscript", "no"));
	qemu_args__add_json(a, "-device", device);
	return 0;
}

int qemu_args__nics(struct qemu_args *a)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < a->spec->n_nics; i++)
		rc = add_nic(a, i);
	return rc;
}

static void add_vnc(struct qemu_args *a, const Gantry__Display *display)
{
	const char *listen = *display->vnc_listen ? display->vnc_listen : "127.0.0.1";
	bool ipv6 = strchr(listen, ':') != NULL;

	qemu_args__add(a, "-vnc", "%s%s%s:%u%s%s", ipv6 ? "[" : "", listen, ipv6 ? "]" : "", display->vnc_display,
		       display->vnc_unused ? ",to=99" : "", *display->vnc_password ? ",password=on" : "");
	if (*display->keymap)
		qemu_args__add(a, "-k", "%s", display->keymap);
}

/* A screen is there when it can be looked at or was asked for: a guest without one says more on its serial console. */
int qemu_args__display(struct qemu_args *a)
{
	const Gantry__Display *display = NULL;
	const struct word_pair *screen = find_word(screens, ARRAY_SIZE(screens), a->spec->vga);
	json_t *device;

	for (size_t i = 0; !display && i < a->spec->n_displays; i++)
		if (a->spec->displays[i]->vnc)
			display = a->spec->displays[i];
	if (!screen)
		return spec_fail(a, "vga", a->spec->vga, "stdvga, cirrus, qxl, virtio or none");
	if (display)
		add_vnc(a, display);
	if (!screen->device || (!display && !*a->spec->vga))
		return 0;
	device = json_pack("{s:s, s:s}", "driver", screen->device, "id", "video");
	if (a->spec->video_memory_mib && !strcmp(screen->device, "VGA"))
		json_object_set_new(device, "vgamem_mb", json_integer(a->spec->video_memory_mib));
	qemu_args__put_pci(a, device, QEMU_SLOT_VGA, 1, 0, 1);
	qemu_args__add_json(a, "-device", device);
	/* A pointer with absolute places, which is the only one that a remote screen can follow. */
	device = json_pack("{s:s, s:s}", "driver", "qemu-xhci", "id", "usb");
	qemu_args__put_pci(a, device, QEMU_SLOT_USB, 1, 0, 1);
	qemu_args__add_json(a, "-device", device);
	qemu_args__add_json(a, "-device", json_pack("{s:s, s:s, s:s}", "driver", "usb-tablet", "id", "tablet", "bus", "usb.0"));
	return 0;
}

/* Where everything lives on a host. One place, so that the lab and packages agree. */
#pragma once

#define PATH_CONFIG "/etc/gantry"
#define PATH_HOST_CONFIG "/etc/gantry/host.yaml"        /* name, address, bridge, uplink, memory reserve, accel */
#define PATH_PKI_CA "/etc/gantry/pki/ca.crt"
#define PATH_PKI_CA_KEY "/etc/gantry/pki/ca.key"        /* on every member, 0600: any of them may sign a join */
#define PATH_PKI_CERT "/etc/gantry/pki/host.crt"
#define PATH_PKI_KEY "/etc/gantry/pki/host.key"
#define PATH_STATE "/var/lib/gantry"
#define PATH_CLUSTER_DB "/var/lib/gantry/clusterd.db"
#define PATH_AGENT_STATE "/var/lib/gantry/agent"        /* durable notes of the agent */
#define PATH_RUN "/run/gantry"
#define PATH_CTL_SOCKET "/run/gantry/ctl.sock"
#define PATH_AGENT_SOCKET "/run/gantry/agent.sock"
#define PATH_DOMAINS "/run/gantry/domains"              /* UUID/: pid, qmp.sock, oob.sock, console.sock, state.json */
#define PATH_ENDED "/run/gantry/ended"                  /* UUID: how its last generation ended */
#define PATH_LOG "/var/log/gantry"                      /* qemu-NAME.log, console-NAME.log */
#define PATH_COROSYNC_CONF "/etc/corosync/corosync.conf"
#define PATH_COROSYNC_AUTHKEY "/etc/corosync/authkey"
#define PORT_CTL 8001                                   /* clusterd: API and join over TLS */
#define PORT_MIGRATION 8002                             /* agent: migration, as in xend */

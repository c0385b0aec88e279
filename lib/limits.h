/* Every maximum of the platform, by name. What happens at a limit is a clear error. */
#pragma once

#define LIMIT_FRAME_BYTES (4u << 20)          /* payload of one frame; larger is refused and the peer dropped */
#define LIMIT_RPC_QUEUE_BYTES (16u << 20)     /* unsent bytes towards a peer that stops reading; then it is dropped */
#define LIMIT_RPC_CLIENTS 256                 /* connections to one listener */
#define LIMIT_RPC_HANDSHAKE_MS 5000           /* a TLS peer that says nothing for so long is dropped */
#define LIMIT_RPC_HANDSHAKES 32               /* TLS handshakes at once per listener; further peers wait in the backlog */
#define LIMIT_RPC_HANDSHAKE_GRACE_MS 2000     /* at that limit, a peer that is silent for longer is dropped for the next one */
#define LIMIT_RPC_ANONYMOUS 16                /* peers without a certificate (join) at once per listener */
#define LIMIT_RPC_ANONYMOUS_MS 60000          /* and how long one may stay */
#define LIMIT_RPC_ANONYMOUS_FRAME_BYTES (64u << 10)
#define LIMIT_RPC_CLOSE_MS 1000               /* to send what is queued and see the peer's end */
#define LIMIT_RPC_SILENT_MS 10000             /* a TCP peer that acknowledges nothing (or reads nothing) for so long is lost */
#define LIMIT_RPC_READ_BYTES (256u << 10)     /* one read of a connection */
#define LIMIT_HOST_NAME_CHARS 63              /* X.509 allows 64 in a common name */
#define LIMIT_SUBPROCESS_OUTPUT_BYTES (64u << 10) /* of each of stdout and stderr; the rest is read and dropped */
#define LIMIT_HOSTCONF_BYTES (64u << 10)
#define LIMIT_CLOG_MESSAGE_BYTES (900u << 10) /* below CPG's 1,047,552 */
#define LIMIT_CLOG_COMMAND_BYTES (512u << 10) /* one command */
#define LIMIT_CLOG_PENDING 4096               /* proposals of this node that are not yet committed */
#define LIMIT_CLOG_KEPT_ENTRIES 20000         /* entries kept behind a snapshot */
#define LIMIT_HOSTS 32
#define LIMIT_DOMAINS 4096
#define LIMIT_VOLUMES 16384
#define LIMIT_POOLS 256
#define LIMIT_JOBS_KEPT 500                   /* ended jobs that are remembered */
#define LIMIT_EVENTS_KEPT 2000
#define LIMIT_REQUESTS_KEPT 1024              /* clients' request ids remembered for exactly-once (model_requests.c) */
#define LIMIT_NAME_CHARS 200                  /* a domain's, pool's, volume's name */
#define LIMIT_XLCFG_BYTES (1u << 20)
#define LIMIT_XLCFG_VALUE_BYTES (16u << 10)   /* one value of an xl.cfg file */
#define LIMIT_XLCFG_SETTINGS 1024             /* different keys in one file */
#define LIMIT_XLCFG_ITEMS 1024                /* items of one list */
#define LIMIT_XLCFG_DEPTH 8                   /* lists inside lists */
#define LIMIT_XLCFG_WARNINGS 200              /* further ones are only counted */
#define LIMIT_DOMAIN_VCPUS 255                /* of one domain: what a q35 machine takes without more ado */
#define LIMIT_DOMAIN_MEMORY_BYTES (16ull << 40)
#define LIMIT_DOMAIN_DISKS 64
#define LIMIT_DOMAIN_NICS 16
#define LIMIT_QMP_LINE_BYTES (16u << 20)
#define LIMIT_QMP_PENDING 256                 /* commands to one QEMU without an answer */
#define LIMIT_QGA_LINE_BYTES 4096             /* of what a guest agent says; the rest of a longer line is dropped */
#define LIMIT_MIGRATION_CHUNK_BYTES (1u << 20) /* of the guest's image in one frame */
#define LIMIT_MIGRATION_SOCKET_BYTES (4u << 20) /* buffer of the socket pair between QEMU and the agent */
#define LIMIT_MIGRATION_QUEUE_BYTES (4u << 20) /* bytes held for a peer or a QEMU that is slow, before the other side is told to wait */
#define LIMIT_CONSOLE_HISTORY_BYTES (64u << 10)
#define LIMIT_FENCE_DEVICES 16                /* of one host */
#define LIMIT_RESTART_STEADY_MS 600000        /* a run this long ends the row */
#define LIMIT_KILLER_HOSTS 3                  /* different hosts that died in a row, each soon after a domain began to run there: it is quarantined */
#define LIMIT_KILLER_RUN_MS 300000            /* a run this long has not killed the host */
#define LIMIT_START_TRIES 2                   /* hosts that are tried for one start */
#define LIMIT_STORE_MERGE 256                 /* log batches in one disk transaction */
#define LIMIT_STORE_MERGE_BYTES (8u << 20)
#define LIMIT_STORE_SNAPSHOT_EVERY 5000       /* applied entries between two snapshots of the model */
#define LIMIT_AUDIT_EVERY 1000                /* applied entries between two comparisons of the hosts' states */
#define LIMIT_CPG_DISPATCH 64                 /* corosync deliveries in one turn of the loop */
#define LIMIT_CPG_HELD_BYTES (32u << 20)      /* messages that wait for the ring id of a new view */
#define LIMIT_CPG_QUEUE_BYTES (32u << 20)     /* messages that corosync does not take yet; then the link drops itself */
#define LIMIT_NODE_WAITING 1024               /* clients' commands that wait for a sync to end or an answer */
#define LIMIT_API_WATCHES 32                  /* watches of one client */
#define LIMIT_JOIN_TOKENS 64                  /* join tokens that are valid at one time */
#define LIMIT_POOL_FOLDER_ENTRIES 65536       /* names in one folder of a pool; more is an error */
#define LIMIT_POOL_QUEUE 1024                 /* operations that wait for one pool; then it counts as one that does not answer */
#define LIMIT_LEASE_RECORDS 256               /* records beside one volume; more means that somebody retries without end */
#define LIMIT_LEASE_HOST_CHARS 64             /* a host's name within a lease record */
#define LIMIT_MANAGER_ACTIONS 512             /* of one step of the leader's manager that are carried out; the rest comes with the next */
#define LIMIT_AGENT_CHANNELS_HELD 16           /* migration channels that wait for the goals to name their task */
#define LIMIT_API_REQUESTS 64                 /* proposals of one client that are under way */
#define LIMIT_CONSOLE_QUEUE_BYTES (2u << 20)  /* unread console output; then the agent is not read on (above the drain mark of proto/rpc.h) */
#define LIMIT_CPG_WINDOW 128                  /* own messages that corosync has not delivered back yet */
#define LIMIT_CPG_BUNDLE_BYTES (64u << 10)        /* what is sent in one turn of the loop goes as one message, up to this */

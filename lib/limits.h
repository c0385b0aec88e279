/* Every maximum of the platform, by name. What happens at a limit is a clear error. */
#pragma once

#define LIMIT_FRAME_BYTES (4u << 20)          /* payload of one frame; larger is refused and the peer dropped */
#define LIMIT_RPC_QUEUE_BYTES (16u << 20)     /* unsent bytes towards a peer that stops reading; then it is dropped */
#define LIMIT_RPC_CLIENTS 256                 /* connections to one listener */
#define LIMIT_RPC_HANDSHAKE_MS 5000           /* a TLS peer that says nothing for so long is dropped */
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
#define LIMIT_REQUESTS_KEPT 1024              /* clients' request ids remembered for exactly-once */
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
#define LIMIT_CONSOLE_HISTORY_BYTES (64u << 10)

/* What a domain's HA policy is unless somebody says otherwise (HaPolicy). */
#pragma once

#define HA_PRIORITY_DEFAULT 100
#define HA_PRIORITY_MAX 255
#define HA_READY_S_DEFAULT 120
#define HA_RESTARTS_DEFAULT 3
#define HA_RESTARTS_MAX 100
#define HA_ORDER_MAX 1000
#define HA_SECONDS_MAX 86400       /* delay, readiness, hung */
#define HA_HUNG_S_MIN 15           /* the guest agent is asked every 5 s */
#define HA_DISARM_MS_DEFAULT 1800000
#define HA_DISARM_MS_MAX 86400000
#define HA_FENCE_SHARE_DEFAULT 50  /* per cent of the other hosts that may be fenced at once */

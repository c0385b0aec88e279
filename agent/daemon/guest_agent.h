/* The QEMU guest agent in a domain, over its virtio-serial port (agent.sock in the run folder): asked again and again whether it lives.
 * Nothing else is asked of it. Owned by the domain from the first guest_agent_tend() to guest_agent_detach(). What it says is bounded in
 * size (qga_parser.h) and in rate: a guest that floods is read no more than GUEST_AGENT_READ_BYTES between two questions. */
#pragma once

#include <jansson.h>

#include "agent/daemon/agent_state.h"

/* Once per pass while the domain's guest is here: connects (again), asks. */
void guest_agent_tend(struct domain *d, uint32_t hung_s);
/* The guest opened or closed its end, by QEMU's events (VSERPORT_CHANGE); only an open port is asked. */
void guest_agent_port_event(struct domain *d, json_t *event_data);
/* After a session with QEMU was lost and is back: events were missed. */
void guest_agent_ask_port(struct domain *d);
void guest_agent_detach(struct domain *d);

/** Links (section 3), and which addresses are private. */
import { BlockList, isIP, isIPv4 } from "node:net";
import { bytesFromText, keyFromText } from "./keys.mjs";
import { need } from "./refusal.mjs";

const privateNetworks = new BlockList();
for (const [network, bits, family] of [
  ["0.0.0.0", 8, "ipv4"], ["10.0.0.0", 8, "ipv4"], ["127.0.0.0", 8, "ipv4"], ["169.254.0.0", 16, "ipv4"],
  ["172.16.0.0", 12, "ipv4"], ["192.168.0.0", 16, "ipv4"],
  ["::", 128, "ipv6"], ["::1", 128, "ipv6"], ["fc00::", 7, "ipv6"], ["fe80::", 10, "ipv6"],
]) privateNetworks.addSubnet(network, bits, family);

/** Whether this is an address on a loopback, link-local or private network; also one of IPv4 in IPv6 form. */
export function isPrivate(host) {
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  return isIP(bare) !== 0 && privateNetworks.check(bare, isIPv4(bare) ? "ipv4" : "ipv6");
}

/** Whether the tracker itself is on such a network, so that peers may be there too. */
export const isNear = (host) => host === "localhost" || host.endsWith(".localhost") || isPrivate(host);

/**
 * What a link says: {url, root, name, near, certificate, members}. The certificate is null where authorities vouch for
 * it; members is whether only accounts are served there.
 */
export function parseLink(link) {
  const fault = (why) => `not a Potluck link: ${why}; wanted potluck:?tr=wss://host:port&id=...`;
  need(link.startsWith("potluck:?"), "refused", fault("it does not begin with potluck:?"));
  const found = { tr: [], id: [], name: [], cert: [], members: [] };
  for (const field of link.slice("potluck:?".length).split("&").slice(0, 16)) {
    const [name, ...value] = field.split("=");
    try {
      if (Object.hasOwn(found, name)) found[name].push(decodeURIComponent(value.join("=")));
    } catch {
      need(false, "refused", fault(`${name} is not percent-encoded UTF-8`));
    }
  }
  need(found.tr.length === 1 && found.id.length === 1 && found.name.length <= 1 && found.cert.length <= 1, "refused",
    fault("tr and id have to be there once, name and cert at most once"));
  const [tr] = found.tr;
  need(/^wss?:\/\/[\x21-\x7e]+$/.test(tr) && URL.canParse(tr), "refused", fault("tr is no address"));
  const { hostname, port, username, password, search, hash } = new URL(tr);
  need(!username && !password && !search && !hash && port !== "0", "refused", fault("tr may be host, port and path"));
  const [cert] = found.cert;
  const certificate = cert === undefined ? null : bytesFromText(cert);
  need(!cert || tr.startsWith("wss:"), "refused", fault("cert names a certificate, and ws:// shows none"));
  const [members] = found.members;
  need(found.members.length <= 1 && (members ?? "1") === "1", "refused", fault("members is 1, or not there at all"));
  const name = (found.name[0] ?? "").replace(/\p{Cc}/gu, "");
  return { url: tr.replace(/\/$/, ""), root: keyFromText(found.id[0]), name: [...name].slice(0, 60).join(""),
    near: isNear(hostname), certificate, members: members === "1" };
}

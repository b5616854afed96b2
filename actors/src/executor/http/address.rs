//! Which addresses may be called. Asked for every connection with the address that it goes to, so that a name which means something else than
//! it did before gets nobody further.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds answer whoever asks with credentials, and is not link-local: AWS by IPv6, Alibaba Cloud.
const METADATA: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)), IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200))];

/// A network: addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `ADDRESS/BITS`, or an address alone.
    pub(super) fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Network { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        let (own, other, width) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (u128::from(own.to_bits()), u128::from(other.to_bits()), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let shift = width - u32::from(self.bits);
        own.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
    }
}

/// Why an address is not called; `None` for one that may be.
pub(super) fn refusal(address: IpAddr, allowed: &[Network]) -> Option<&'static str> {
    let address = meant(address);
    if allowed.iter().any(|network| network.contains(address)) {
        return None;
    }
    if METADATA.contains(&address) {
        return Some("it is where a cloud gives its credentials out");
    }
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("it is no address of a machine"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("it is link-local, where clouds give their credentials out"),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Some("it is an address of many machines"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("it is no address of a machine"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("it is link-local"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("it is an address of many machines"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// The address that a packet ends at: IPv4 in IPv6, mapped (RFC 4291 §2.5.5.2) or translated (RFC 6052 §2.1), is IPv4.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into(),
        _ => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<_> = allowed.iter().map(|network| Network::parse(network).expect("a network")).collect();
        refusal(address.parse().expect("an address"), &allowed).is_some()
    }

    #[test]
    fn machines_may_be_called_and_credentials_may_not_be_fetched() {
        for address in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "::1", "2001:db8::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(!refused(address, &[]), "{address}");
        }
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(refused(address, &[]), "{address}");
        }
    }

    #[test]
    fn a_network_that_is_allowed_is_allowed_and_its_neighbour_is_not() {
        assert!(!refused("169.254.7.9", &["169.254.7.0/24"]));
        assert!(refused("169.254.8.9", &["169.254.7.0/24"]));
        assert!(!refused("::ffff:169.254.7.9", &["169.254.7.9"]));
        assert!(!refused("169.254.7.9", &["0.0.0.0/0"]));
        assert!(!refused("fe80::9", &["fe80::/10"]));
        assert!(refused("fe80::9", &["0.0.0.0/0"]));
        for text in ["", "x", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3/8"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}

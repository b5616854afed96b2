//! Which devices CUDA shows this process: `CUDA_VISIBLE_DEVICES`, by NVIDIA's rules and without asking CUDA.
//!
//! *CUDA C++ Programming Guide*, "CUDA Environment Variables": a sequence of indices or uuids with commas between; a uuid may be cut off where its
//! beginning is that of no other; "if one of the indices is invalid, only the devices whose index precedes the invalid index are visible". What it does
//! not say is as PyTorch has it, which imitates the driver (`torch/cuda/__init__.py`, `_parse_visible_devices`): numbers end where their digits do,
//! the first entry says whether all are numbers, `GPU-` or `MIG-`, and an entry that is there twice hides everything.
//!
//! *MIG User Guide*, "CUDA Device Enumeration": a part is `MIG-<uuid>`, before driver 470 `MIG-<uuid of the GPU>/<GPU instance>/<compute instance>`; a
//! process sees one part, the first; and where it sees a part it sees no whole device.

use super::DeviceReading;

/// A device, or a part of one, by their places in what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The device's place.
    pub device: usize,
    /// The place of the part among the device's parts; none for a device that is whole.
    pub part: Option<usize>,
}

/// The devices and parts that CUDA shows to one process with these values of `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER`, in CUDA's order.
///
/// # Errors
///
/// As [`named`].
pub fn visible(devices: &[DeviceReading], value: Option<&str>, order: Option<&str>) -> Result<Vec<Place>, String> {
    Ok(enumerated(devices, named(devices, value, order)?))
}

/// The devices and parts that the value names, or all devices where there is none: those that processes share among them. A device that is divided
/// stands for its parts.
///
/// # Errors
///
/// In one line why nobody but CUDA can say: it counts devices from fast to slow, and these are not alike.
pub fn named(devices: &[DeviceReading], value: Option<&str>, order: Option<&str>) -> Result<Vec<Place>, String> {
    let ordered = ordered(devices);
    Ok(match value.map_or(Named::All, parse) {
        Named::All => ordered,
        Named::Indices(indices) => {
            let alike = devices.windows(2).all(|pair| pair[0].name == pair[1].name);
            if !alike && order != Some("PCI_BUS_ID") && !indices.is_empty() {
                return Err(
                    "CUDA counts devices of different kinds from fast to slow: set CUDA_DEVICE_ORDER=PCI_BUS_ID".to_owned()
                );
            }
            indices.iter().map_while(|index| ordered.get(*index).copied()).collect()
        }
        Named::Uuids(prefixes) => {
            let candidates: Vec<(&str, Place)> =
                devices.iter().enumerate().map(|(at, device)| (device.uuid.as_str(), Place { device: at, part: None })).collect();
            distinct(prefixes.iter().map_while(|prefix| unique(&candidates, prefix)))
        }
        Named::Parts(names) => distinct(names.iter().map_while(|name| part(devices, name))),
    })
}

/// What the value names.
enum Named<'a> {
    All,
    Indices(Vec<usize>),
    Uuids(Vec<&'a str>),
    Parts(Vec<&'a str>),
}

fn parse(value: &str) -> Named<'_> {
    let entries = || value.split(',').map(str::trim);
    for (prefix, named) in [("GPU-", Named::Uuids as fn(_) -> _), ("MIG-", Named::Parts)] {
        if value.trim_start().starts_with(prefix) {
            return named(distinct(entries().take_while(|entry| entry.starts_with(prefix))));
        }
    }
    Named::Indices(distinct(entries().map_while(leading_number)))
}

/// The number at the beginning, as C's `strtoul` reads it; none where there is none or it is below 0.
fn leading_number(entry: &str) -> Option<usize> {
    let digits = entry.strip_prefix('+').unwrap_or(entry);
    let end = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The entries, or none at all where one is there twice.
fn distinct<T: PartialEq>(entries: impl Iterator<Item = T>) -> Vec<T> {
    let mut kept = Vec::new();
    for entry in entries {
        if kept.contains(&entry) {
            return Vec::new();
        }
        kept.push(entry);
    }
    kept
}

/// All devices by their places on the bus; those that do not tell theirs stay as NVML has them.
fn ordered(devices: &[DeviceReading]) -> Vec<Place> {
    let mut places: Vec<usize> = (0..devices.len()).collect();
    if devices.iter().all(|device| device.bus.is_some()) {
        places.sort_by_key(|at| &devices[*at].bus);
    }
    places.into_iter().map(|device| Place { device, part: None }).collect()
}

/// The one whose uuid begins so.
fn unique(candidates: &[(&str, Place)], prefix: &str) -> Option<Place> {
    let mut fitting = candidates.iter().filter(|(uuid, _)| uuid.starts_with(prefix));
    fitting.next().filter(|_| fitting.next().is_none()).map(|(_, place)| *place)
}

/// The part of this name, in either form.
fn part(devices: &[DeviceReading], name: &str) -> Option<Place> {
    let all = || {
        let of =
            |(device, reading): (usize, &DeviceReading)| (0..reading.parts.len()).map(move |at| Place { device, part: Some(at) });
        devices.iter().enumerate().flat_map(of)
    };
    let reading = |place: Place| place.part.map(|at| &devices[place.device].parts[at]);
    if let Some((whole, ids)) = name.split_once('/') {
        let whole = whole.strip_prefix("MIG-")?;
        let (gpu, compute) = ids.split_once('/')?;
        let instance = (gpu.parse().ok()?, compute.parse().ok()?);
        let candidates: Vec<(&str, Place)> = all()
            .filter(|place| reading(*place).is_some_and(|part| part.instance == Some(instance)))
            .map(|place| (devices[place.device].uuid.as_str(), place))
            .collect();
        return unique(&candidates, whole);
    }
    let candidates: Vec<(&str, Place)> = all().filter_map(|place| Some((reading(place)?.uuid.as_str(), place))).collect();
    unique(&candidates, name)
}

/// What CUDA makes of devices that were named: of one that is divided its first part, and of parts the first and nothing beside it.
fn enumerated(devices: &[DeviceReading], named: Vec<Place>) -> Vec<Place> {
    let usable = |place: Place| match (place.part, devices[place.device].mig) {
        (None, true) => (!devices[place.device].parts.is_empty()).then_some(Place { part: Some(0), ..place }),
        (Some(_), _) | (None, false) => Some(place),
    };
    let seen: Vec<Place> = named.into_iter().filter_map(usable).collect();
    match seen.iter().find(|place| place.part.is_some()) {
        Some(part) => vec![*part],
        None => seen,
    }
}

#[cfg(test)]
mod tests {
    use super::super::PartReading;
    use super::*;

    const PCI: Option<&str> = Some("PCI_BUS_ID");

    fn device(uuid: &str, name: &str, bus: &str) -> DeviceReading {
        DeviceReading { uuid: uuid.to_owned(), name: name.to_owned(), bus: Some(bus.to_owned()), ..DeviceReading::default() }
    }

    fn part(uuid: &str, instance: (u32, u32)) -> PartReading {
        PartReading { uuid: uuid.to_owned(), instance: Some(instance), ..PartReading::default() }
    }

    /// Four alike.
    fn four() -> Vec<DeviceReading> {
        ["GPU-aa10", "GPU-aa20", "GPU-bb30", "GPU-cc40"]
            .iter()
            .zip(["1", "2", "3", "4"])
            .map(|(uuid, bus)| device(uuid, "H100", bus))
            .collect()
    }

    /// One whole, and two in parts.
    fn divided() -> Vec<DeviceReading> {
        let mut devices = vec![device("GPU-aa", "A100", "1"), device("GPU-bb", "A100", "2"), device("GPU-cc", "A100", "3")];
        (devices[1].mig, devices[1].parts) = (true, vec![part("MIG-b1", (7, 0)), part("MIG-b2", (8, 0))]);
        (devices[2].mig, devices[2].parts) = (true, vec![part("MIG-c1", (7, 0)), part("MIG-c2", (7, 1))]);
        devices
    }

    fn shown(devices: &[DeviceReading], value: Option<&str>) -> Vec<String> {
        let name = |place: Place| {
            let device = &devices[place.device];
            place.part.map_or(&device.uuid, |at| &device.parts[at].uuid).clone()
        };
        visible(devices, value, PCI).unwrap_or_default().into_iter().map(name).collect()
    }

    #[test]
    fn whole_devices_are_shown_as_the_programming_guide_says() {
        let devices = four();
        for (value, wanted) in [
            (None, vec!["GPU-aa10", "GPU-aa20", "GPU-bb30", "GPU-cc40"]),
            // In the order of the sequence.
            (Some("2,1"), vec!["GPU-bb30", "GPU-aa20"]),
            // The guide's own example of an entry that is none: it and all after it are hidden.
            (Some("0,2,-1,1"), vec!["GPU-aa10", "GPU-bb30"]),
            (Some("0,4,1"), vec!["GPU-aa10"]),
            (Some("7"), vec![]),
            (Some(""), vec![]),
            (Some("-1"), vec![]),
            (Some("NoDevFiles"), vec![]),
            (Some("all"), vec![]),
            (Some(" 3 , 0 "), vec!["GPU-cc40", "GPU-aa10"]),
            // PyTorch's own example of numbers with something behind them.
            (Some("1gpu2,2ampere"), vec!["GPU-aa20", "GPU-bb30"]),
            (Some("+1"), vec!["GPU-aa20"]),
            (Some("0,"), vec!["GPU-aa10"]),
            (Some(",0"), vec![]),
            (Some("99999999999999999999999,0"), vec![]),
            // Twice is none, whether it is there or not.
            (Some("0,1,0"), vec![]),
            (Some("0,9,9"), vec![]),
            (Some("0,-1,0"), vec!["GPU-aa10"]),
            (Some("GPU-bb30,GPU-aa10"), vec!["GPU-bb30", "GPU-aa10"]),
            (Some("GPU-bb"), vec!["GPU-bb30"]),
            (Some("GPU-"), vec![]),
            // The beginning of two, and of none.
            (Some("GPU-cc,GPU-aa,GPU-bb"), vec!["GPU-cc40"]),
            (Some("GPU-cc,GPU-dd,GPU-bb"), vec!["GPU-cc40"]),
            (Some("GPU-bb,GPU-bb"), vec![]),
            (Some("GPU-bb,GPU-bb3"), vec![]),
            // One kind of name is not mixed with another.
            (Some("GPU-bb,0"), vec!["GPU-bb30"]),
            (Some("0,GPU-bb"), vec!["GPU-aa10"]),
            (Some("gpu-bb30"), vec![]),
        ] {
            assert_eq!(shown(&devices, value), wanted, "{value:?}");
        }
    }

    #[test]
    fn of_parts_a_process_sees_one() {
        let devices = divided();
        for (value, wanted) in [
            // Where there is a part there is no whole device.
            (None, vec!["MIG-b1"]),
            (Some("0"), vec!["GPU-aa"]),
            (Some("0,1"), vec!["MIG-b1"]),
            (Some("2,1"), vec!["MIG-c1"]),
            (Some("GPU-bb"), vec!["MIG-b1"]),
            (Some("MIG-b2"), vec!["MIG-b2"]),
            (Some("MIG-c2,MIG-b1"), vec!["MIG-c2"]),
            (Some("MIG-b"), vec![]),
            (Some("MIG-zz,MIG-b1"), vec![]),
            (Some("MIG-b1,MIG-b1"), vec![]),
            (Some("MIG-GPU-cc/7/1"), vec!["MIG-c2"]),
            (Some("MIG-GPU-bb/8/0"), vec!["MIG-b2"]),
            (Some("MIG-GPU-bb/9/0"), vec![]),
            (Some("MIG-GPU-bb/8"), vec![]),
            (Some("MIG-GPU-/7/0"), vec![]),
            (Some("MIG-GPU-b/8/x"), vec![]),
        ] {
            assert_eq!(shown(&devices, value), wanted, "{value:?}");
        }
    }

    #[test]
    fn what_processes_share_is_all_that_is_named() {
        let (devices, place) = (divided(), |device, part| Place { device, part });
        assert_eq!(named(&devices, None, None), Ok(vec![place(0, None), place(1, None), place(2, None)]));
        assert_eq!(named(&devices, Some("MIG-c2,MIG-b1"), None), Ok(vec![place(2, Some(1)), place(1, Some(0))]));
        assert_eq!(named(&devices, Some("1"), None), Ok(vec![place(1, None)]));
    }

    #[test]
    fn a_divided_device_without_parts_is_none() {
        let mut devices = four();
        devices[0].mig = true;
        assert_eq!(shown(&devices, None), ["GPU-aa20", "GPU-bb30", "GPU-cc40"]);
        assert_eq!(shown(&devices, Some("0,1")), ["GPU-aa20"]);
    }

    #[test]
    fn numbers_are_those_of_the_bus() {
        let mut devices = four();
        devices.swap(0, 3);
        assert_eq!(shown(&devices, Some("0")), ["GPU-aa10"]);
        devices[1].bus = None;
        assert_eq!(shown(&devices, Some("0")), ["GPU-cc40"]);
    }

    #[test]
    fn numbers_of_devices_that_are_not_alike_mean_nothing_without_their_order() {
        let mut devices = four();
        devices[2].name = "T4".to_owned();
        for order in [None, Some("FASTEST_FIRST"), Some("")] {
            let why = visible(&devices, Some("0"), order).unwrap_err();
            assert!(why.contains("CUDA_DEVICE_ORDER=PCI_BUS_ID") && !why.contains('\n'), "{why}");
            // Those that are hidden, all, or named for good do not depend on it.
            assert_eq!(visible(&devices, Some("-1"), order), Ok(vec![]));
            assert_eq!(visible(&devices, None, order).map(|places| places.len()), Ok(4));
            assert_eq!(visible(&devices, Some("GPU-bb"), order), Ok(vec![Place { device: 2, part: None }]));
        }
        assert_eq!(visible(&devices, Some("0"), PCI), Ok(vec![Place { device: 0, part: None }]));
        assert_eq!(visible(&four(), Some("0"), None), Ok(vec![Place { device: 0, part: None }]));
        assert_eq!(visible(&[], None, None), Ok(vec![]));
    }
}

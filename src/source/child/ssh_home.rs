//! A home folder for libssh2, with the known hosts in the one place where it looks for them.

use std::fs;
use std::io::{ErrorKind, Read};

use super::Request;

/// Largest file of known hosts.
const KNOWN_HOSTS_MAX_BYTES: u64 = 8 << 20;

/// Copies the known hosts to `.ssh/known_hosts` of the folder that the child has for its home. Without such a file every
/// host is unknown.
pub(super) fn make(request: &Request) -> std::io::Result<()> {
    let folder = request.folder.join(".ssh");
    fs::create_dir_all(&folder)?;
    let mut known = Vec::new();
    if let Some(path) = &request.credentials.known_hosts_file {
        match fs::File::open(path) {
            Ok(file) => drop(file.take(KNOWN_HOSTS_MAX_BYTES).read_to_end(&mut known)?),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let place = folder.join("known_hosts");
    // Every poll comes here: a disk that may sleep is left asleep.
    if fs::read(&place).is_ok_and(|there| there == known) { Ok(()) } else { fs::write(place, known) }
}

/// Base64 without padding, as OpenSSH prints fingerprints.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn fingerprints_are_spelled_as_openssh_does() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("\u{3ff}", "z78")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}

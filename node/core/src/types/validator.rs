//! Validator sets: sorted by address, without duplicates, with bounded power, in memory and in every encoding.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use super::encode;
use super::hash::{Domain, Hash};
use super::key::Address;

/// Limit on the sum of powers: three times it still fits an `i64`, which other implementations count in.
pub const MAX_TOTAL_POWER: u64 = u64::MAX / 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Validator {
    /// The validator's key, which is not its node's key.
    pub address: Address,
    /// Weight of its vote; at least 1.
    pub power: u64,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    #[error("a validator set needs at least one validator")]
    Empty,
    #[error("validator {0} is in the set twice")]
    Duplicate(Address),
    #[error("validator {0} has power 0; the least is 1")]
    NoPower(Address),
    #[error("the total power exceeds the limit of {MAX_TOTAL_POWER}")]
    TooMuchPower,
}

/// The validators of one height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    sorted: Vec<Validator>,
    total_power: u64,
}

impl ValidatorSet {
    /// Sorts `validators` by address and checks the rules of a set.
    pub fn new(mut validators: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        validators.sort_by_key(|validator| validator.address);
        if validators.is_empty() {
            return Err(ValidatorSetError::Empty);
        }
        if let Some(pair) = validators.windows(2).find(|pair| pair[0].address == pair[1].address) {
            return Err(ValidatorSetError::Duplicate(pair[0].address));
        }
        let mut total_power = 0_u64;
        for validator in &validators {
            if validator.power == 0 {
                return Err(ValidatorSetError::NoPower(validator.address));
            }
            total_power = total_power
                .checked_add(validator.power)
                .filter(|total| *total <= MAX_TOTAL_POWER)
                .ok_or(ValidatorSetError::TooMuchPower)?;
        }
        Ok(Self { sorted: validators, total_power })
    }

    pub fn hash(&self) -> Hash {
        Hash::of(Domain::ValidatorSet, &encode(self))
    }

    pub fn total_power(&self) -> u64 {
        self.total_power
    }

    /// The least power that is more than two thirds of the total.
    pub fn quorum(&self) -> u64 {
        self.total_power * 2 / 3 + 1
    }

    pub fn get(&self, address: &Address) -> Option<&Validator> {
        self.index_of(address).map(|index| &self.sorted[index])
    }

    /// Position in the order by address.
    pub fn index_of(&self, address: &Address) -> Option<usize> {
        self.sorted.binary_search_by_key(address, |validator| validator.address).ok()
    }

    /// By address.
    pub fn iter(&self) -> std::slice::Iter<'_, Validator> {
        self.sorted.iter()
    }

    pub fn as_slice(&self) -> &[Validator] {
        &self.sorted
    }

    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Never true: a set has at least one validator.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }
}

impl<'a> IntoIterator for &'a ValidatorSet {
    type Item = &'a Validator;
    type IntoIter = std::slice::Iter<'a, Validator>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl BorshSerialize for ValidatorSet {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.sorted.serialize(writer)
    }
}

impl BorshDeserialize for ValidatorSet {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let read = Vec::<Validator>::deserialize_reader(reader)?;
        let set = Self::new(read.clone()).map_err(|error| invalid(error.to_string()))?;
        // One set has one encoding.
        if set.sorted == read { Ok(set) } else { Err(invalid("validators are not sorted by address".into())) }
    }
}

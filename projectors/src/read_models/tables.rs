//! Where a read model's tables are: the live ones, or ones that are built beside them.

use read_store::{projections::ProjectionName, schema::SCHEMA};

/// The tables of one schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    schema: String,
}

impl Tables {
    /// The tables that queries read.
    pub fn live() -> Self {
        Self::in_schema(SCHEMA)
    }

    /// The tables of the same names in another schema. The name goes into statements as it is, so it is never a user's.
    pub fn in_schema(schema: &str) -> Self {
        Self { schema: schema.to_owned() }
    }

    /// The schema's name.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The table of a read model, with its schema.
    pub fn of(&self, name: ProjectionName) -> String {
        // A read model's table has the read model's name.
        format!("{}.{name}", self.schema)
    }
}

#[cfg(test)]
mod tests {
    use read_store::schema;

    use super::*;

    #[test]
    fn the_live_tables_are_those_of_the_read_store() {
        let names = ProjectionName::ALL.map(|name| Tables::live().of(name));
        assert_eq!(names, [schema::ORDERS, schema::INVENTORY, schema::AUDIT]);
    }
}

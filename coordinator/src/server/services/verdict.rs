//! `Verdict`: what the rows of a sweep say about its claims.

use ergodic_common::ids::ClaimsHash;
use ergodic_common::quantity::ClaimRegion;
use ergodic_common::spec::MAX_TEXT_BYTES;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::analysis::claims::{CellPoint, ClaimQuery, ClaimVerdict, ClaimVerdicts};
use crate::server::services::access::SweepApi;

impl SweepApi {
    /// The body of `Verdict`.
    pub(crate) async fn answer_verdict(
        &self,
        request: v1::VerdictRequest,
    ) -> Result<v1::VerdictResponse, Status> {
        if request.claims.len() > MAX_TEXT_BYTES {
            let message = format!(
                "claims: the file has {} bytes; at most {MAX_TEXT_BYTES} are possible",
                request.claims.len()
            );
            return Err(UserError::new(ErrorCode::BadInput, message).into());
        }

        let snapshot = self.find_snapshot(&request.sweep).await?;
        let _permit = self.acquire_for_cells(&snapshot, 0).await?;
        let claims_hash = self.hash_claims(&request, &snapshot.spec).await?;
        let verdicts = self
            .read_rows(&snapshot, move |rows| {
                let file = names_claims(&request)
                    .then_some((request.file.as_str(), request.claims.as_str()));
                ClaimQuery::new(rows.spec, file)?.judge(rows)
            })
            .await?;

        Ok(v1::VerdictResponse {
            sweep: snapshot.id.into(),
            name: snapshot.spec.name.clone(),
            rows: verdicts.into_iter().map(to_claim_row).collect(),
            done: snapshot.done,
            trials: snapshot.trials,
            data: snapshot.data_provenance,
            numerics: snapshot.spec.numerics.clone(),
            seed: snapshot.spec.seed,
            scale: snapshot.spec.scales.chosen.clone().unwrap_or_default(),
            claims_hash: claims_hash.map_or_else(Vec::new, |hash| hash.to_vec()),
        })
    }

    /// The hash of the claims that are judged.
    async fn hash_claims(
        &self,
        request: &v1::VerdictRequest,
        spec: &Spec,
    ) -> Result<Option<ClaimsHash>, Status> {
        let source = if names_claims(request) {
            spec.claims_source(&request.claims, &request.file)
        } else {
            self.with_sweep(&request.sweep, |_, sweep| sweep.record.source.clone())
                .await?
        };
        Ok(source.compute_claims_hash())
    }
}

/// Whether claims are sent along. Without them, those of the sweep are judged.
fn names_claims(request: &v1::VerdictRequest) -> bool {
    !(request.file.is_empty() && request.claims.is_empty())
}

/// A verdict as it travels.
pub(crate) fn to_claim_row(found: ClaimVerdicts) -> v1::ClaimRow {
    let ClaimVerdicts {
        claim,
        cells,
        cell,
        region,
        is_post_hoc,
        judged,
    } = found;
    let [region_low, region_high] = region_ends(claim.region);
    let verdict = match judged.verdict {
        ClaimVerdict::Agrees => v1::Verdict::Agrees,
        ClaimVerdict::Disagrees => v1::Verdict::Disagrees,
        ClaimVerdict::NotEnough => v1::Verdict::NotEnough,
    };
    v1::ClaimRow {
        form: claim.form.name().to_owned(),
        level: 1.0 - 2.0 * claim.alpha,
        control: claim.is_control,
        claim: claim.name,
        what: claim.what,
        of: claim.of,
        cells,
        verdict: verdict.into(),
        effect: judged.effect,
        low: judged.interval.map(|ends| ends.0),
        high: judged.interval.map(|ends| ends.1),
        region,
        n: judged.n,
        needed: judged.needed,
        post_hoc: is_post_hoc,
        note: judged.notes.join("; "),
        alpha: claim.alpha,
        cell: cell.map(|cell| cell.0),
        region_low,
        region_high,
        region_outside: matches!(claim.region, Some(ClaimRegion::Outside(..))),
        points: judged.points.into_iter().map(to_claim_point).collect(),
    }
}

fn to_claim_point(point: CellPoint) -> v1::ClaimPoint {
    let (low, high) = point.interval;
    v1::ClaimPoint {
        cell: point.cell.0,
        value: point.value,
        low,
        high,
    }
}

/// The lower and the upper end of a region, as far as it has them.
fn region_ends(region: Option<ClaimRegion>) -> [Option<f64>; 2] {
    match region {
        Some(ClaimRegion::Within(low, high) | ClaimRegion::Outside(low, high)) => {
            [Some(low), Some(high)]
        }
        Some(ClaimRegion::Above(low)) => [Some(low), None],
        Some(ClaimRegion::Below(high)) => [None, Some(high)],
        None => [None, None],
    }
}

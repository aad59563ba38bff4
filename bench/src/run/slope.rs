//! A straight line through measured points: how much of something one more costs, and how sure that is.

/// The 97.5 % quantile of the normal distribution: a confidence of 95 % on both sides.
const NORMAL_QUANTILE: f64 = 1.959_964;

/// By least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) slope: f64,
    /// The slope is within this of the true one with a confidence of 95 %, if the points err independently.
    pub(crate) margin: f64,
}

impl Line {
    /// None without three points, or when all are at one place.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        let freedom = points.len().checked_sub(2).filter(|freedom| *freedom > 0)? as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let sum_xx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if sum_xx == 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / sum_xx;
        let residual: f64 = points.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
        Some(Self { slope, margin: student_quantile(freedom) * (residual / freedom / sum_xx).sqrt() })
    }

    /// The least slope that the points allow.
    pub(crate) fn at_least(self) -> f64 {
        self.slope - self.margin
    }
}

/// The 97.5 % quantile of Student's distribution (Abramowitz and Stegun 26.7.5): exact to a hundredth from four degrees on,
/// too small below.
fn student_quantile(freedom: f64) -> f64 {
    let z = NORMAL_QUANTILE;
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_have_its_slope_and_no_margin() {
        let line = Line::through(&[(0.0, 7.0), (10.0, 27.0), (40.0, 87.0)]).unwrap();
        assert!((line.slope - 2.0).abs() < 1e-9 && line.margin < 1e-9, "{line:?}");
    }

    #[test]
    fn points_that_go_up_and_down_allow_a_slope_of_nothing() {
        let points: Vec<_> = (0..20).map(|n| (f64::from(n), f64::from(n % 2))).collect();
        let line = Line::through(&points).unwrap();
        assert!(line.at_least() < 0.0 && line.slope + line.margin > 0.0, "{line:?}");
    }

    #[test]
    fn few_points_make_unsure() {
        assert!((student_quantile(4.0) - 2.776).abs() < 0.01);
        assert!((student_quantile(23.0) - 2.069).abs() < 0.001);
    }

    #[test]
    fn two_points_or_one_place_make_no_line() {
        assert_eq!(Line::through(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Line::through(&[(1.0, 1.0); 5]), None);
    }
}
